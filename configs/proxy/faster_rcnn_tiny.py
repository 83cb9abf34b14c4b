# A proxy that trains on a CPU in minutes: narrow heads on a frozen backbone, images of at most 320 pixels a side.
_base_ = './faster_rcnn_r18_small.py'
custom_imports = dict(imports=['adadedup_mm.models.lite0'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(_delete_=True, type='FrozenLite0', remember=1500),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=32),
    # One shape of anchors: assigning them is what a step spends most of its time on.
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(ratios=[1.])),
    roi_head=dict(
        # RoIAlign would take half of the time with as many samples as RoIs have pixels.
        bbox_roi_extractor=dict(out_channels=32, finest_scale=28, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(in_channels=32, fc_out_channels=128)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=100, max_per_img=60),
        rcnn=dict(sampler=dict(num=32))))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='RandomFlip', prob=.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# No workers: they would compete with the training for the same cores.
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
