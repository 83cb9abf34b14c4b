# The line to add to a config: every 10 epochs the half with the highest losses, a tenth of it explored at random.
dynamic = dict(policy='epsilon_greedy', keep_ratio=.5, period=10, epsilon=.1, rate=.8)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
