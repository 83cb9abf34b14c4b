"""What is known of other people's detectors: their losses for each sample, heads, checkpoints, configs, isolation."""
