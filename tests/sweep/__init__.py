"""Configs, data and models that the tests of MMDetection's packaged configs share."""
