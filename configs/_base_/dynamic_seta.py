# The line to add to a config: a window that slides from easy to hard samples, anew in every epoch.
dynamic = dict(policy='seta', ratio=.1, groups=10, width=.5, delta=.875)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
