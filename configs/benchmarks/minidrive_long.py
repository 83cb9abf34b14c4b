# Fewer samples or fewer steps? Trained three times as long, so that no selection is short of steps:
#   python tools/benchmark.py configs/benchmarks/minidrive_long.py --jobs 2
_base_ = './minidrive.py'
_epochs = 72
_schedule = [
    dict(type='LinearLR', start_factor=.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=_epochs, T_max=_epochs, eta_min_ratio=.01,
         convert_to_iter_based=True)]
common = dict(train_cfg=dict(max_epochs=_epochs, val_interval=_epochs), param_scheduler=_schedule)
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict()))
keep_ratios = [.3]
seeds = [0, 1, 2]
