# Dynamic pruning of scikit-learn's digits, about 20 seconds a training on one CPU core:
#   python tools/benchmark.py configs/benchmarks/digits_dynamic.py
#   python benchmarks/dynamic_tables.py work_dirs/digits_dynamic docs/DYNAMIC.md
_base = 'adadedup_mm::_base_/dynamic_'
models = dict(resnet='adadedup_mm::dynamic/resnet_digits.py')
variants = dict(
    full=dict(),
    random=dict(_base_=f'{_base}random.py', dynamic=dict(period=3)),
    epsilon_greedy=dict(_base_=f'{_base}epsilon_greedy.py', dynamic=dict(period=3)),
    ucb=dict(_base_=f'{_base}ucb.py', dynamic=dict(period=3)),
    # How many samples these two use depends on the losses, so that their own ratios are varied.
    infobatch_30=dict(_base_=f'{_base}infobatch.py', dynamic=dict(ratio=0.3)),
    infobatch_50=dict(_base_=f'{_base}infobatch.py', dynamic=dict(ratio=0.5)),
    infobatch_70=dict(_base_=f'{_base}infobatch.py', dynamic=dict(ratio=0.7)),
    seta_30=dict(_base_=f'{_base}seta.py', dynamic=dict(width=0.8)),
    seta_50=dict(_base_=f'{_base}seta.py', dynamic=dict(width=0.6)),
    seta_70=dict(_base_=f'{_base}seta.py', dynamic=dict(width=0.3)),
)
keep_ratios = [0.7, 0.5, 0.3]
seeds = [0, 1, 2, 3, 4]
metric = 'accuracy/top1'
compare_with = 'full'
