# The line to add to a config: every 10 epochs the half with the highest upper bounds of the loss.
dynamic = dict(policy='ucb', keep_ratio=0.5, period=10, c=1.0, rate=0.8)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
