"""Pruning a training set: the whole way from a config to annotation files, its plan and its estimate."""
