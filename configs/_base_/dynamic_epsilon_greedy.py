# The line to add to a config: every 10 epochs the half with the highest losses, a tenth of it
# explored at random.
dynamic = dict(policy='epsilon_greedy', keep_ratio=0.5, period=10, epsilon=0.1, rate=0.8)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
