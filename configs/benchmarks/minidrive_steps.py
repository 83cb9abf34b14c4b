# What fewer steps cost, whatever the samples: trained on all of them, but for as many steps as 30,
# 50 and 70 % get:   python tools/benchmark.py configs/benchmarks/minidrive_steps.py --jobs 2
_base_ = './minidrive.py'
_warm_up = dict(
    type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True
)
_cosine = dict(
    type='CosineAnnealingLR', by_epoch=True, begin=0, eta_min_ratio=0.01, convert_to_iter_based=True
)
variants = dict(
    _delete_=True,
    full=dict(),
    full_17_epochs=dict(
        train_cfg=dict(max_epochs=17, val_interval=17),
        param_scheduler=[_warm_up, dict(_cosine, end=17, T_max=17)],
    ),
    full_12_epochs=dict(
        train_cfg=dict(max_epochs=12, val_interval=12),
        param_scheduler=[_warm_up, dict(_cosine, end=12, T_max=12)],
    ),
    full_7_epochs=dict(
        train_cfg=dict(max_epochs=7, val_interval=7),
        param_scheduler=[_warm_up, dict(_cosine, end=7, T_max=7)],
    ),
)
compare_with = 'full'
