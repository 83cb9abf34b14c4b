# The line to add to a config: every epoch half of the well-learned samples, weighted up; all in the last eighth.
dynamic = dict(policy='infobatch', ratio=.5, delta=.875)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
