# A proxy that trains on a CPU in minutes: narrow heads on a frozen backbone, images of at most 320
# pixels a side.
_base_ = './faster_rcnn_r18_narrow.py'
custom_imports = dict(imports=['adadedup_mm.models.lite0'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    # The outputs for 1500 images take 1 to 2 GB.
    backbone=dict(_delete_=True, type='FrozenLite0', remember=1500),
    neck=dict(in_channels=[24, 40, 112, 320]),
    # One shape of anchors: assigning them is what a step spends most of its time on.
    rpn_head=dict(anchor_generator=dict(ratios=[1.0])),
)
