# The line to add to a config: a fresh random half every epoch; no losses are needed.
dynamic = dict(policy='random', keep_ratio=.5, period=10)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
