# The line to add to a config: a window that slides from easy to hard samples, anew in every epoch.
dynamic = dict(policy='seta', ratio=0.1, groups=10, width=0.5, delta=0.875)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
