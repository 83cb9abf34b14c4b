# The line to add to a config: every epoch half of the well-learned samples, weighted up; all in the
# last eighth.
dynamic = dict(policy='infobatch', ratio=0.5, delta=0.875)
runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'
