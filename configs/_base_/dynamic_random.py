# The line to add to a config: every 10 epochs a fresh random half of the training set. docs/DYNAMIC.md explains the keys.
dynamic = dict(policy='random', keep_ratio=.5, period=10)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
