# The same on a frozen backbone with ImageNet weights, which gets further in less time; what the
# benchmarks train.
_base_ = './faster_rcnn_minidrive.py'
custom_imports = dict(imports=['adadedup_mm.models.lite0'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(_delete_=True, type='FrozenLite0', remember=1500),
    neck=dict(in_channels=[24, 40, 112, 320]),
    # One shape of anchors: assigning them is what a step spends most of its time on.
    rpn_head=dict(anchor_generator=dict(ratios=[1.0])),
)

train_cfg = dict(max_epochs=24, val_interval=24)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=24,
        T_max=24,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
