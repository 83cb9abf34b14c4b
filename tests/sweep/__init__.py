"""What the tests of MMDetection's packaged configs share: which configs, small data for them, and smaller models."""
