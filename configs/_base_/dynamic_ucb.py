# The line to add to a config: every 10 epochs the half with the highest upper bounds of the loss.
dynamic = dict(policy='ucb', keep_ratio=.5, period=10, c=1., rate=.8)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
