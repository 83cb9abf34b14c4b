# The line to add to a config: every 10 epochs a fresh random half; no losses are needed.
dynamic = dict(policy='random', keep_ratio=0.5, period=10)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
