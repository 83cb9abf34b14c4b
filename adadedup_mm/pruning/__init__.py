"""Pruning a training set: from a config to annotation files; the estimate and the dry run."""
