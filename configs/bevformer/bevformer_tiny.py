# BEVFormer-tiny on nuScenes, as published: ResNet-50, one feature level, 50 x 50 BEV, images at
# half their size.
_base_ = ['./bevformer_base.py']

pc_range = {{_base_.pc_range}}
classes = {{_base_.classes}}

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='Det3DDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=50,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    img_neck=dict(in_channels=[2048], num_outs=1),
    pts_bbox_head=dict(
        bev_h=50,
        bev_w=50,
        # The published weights turn the previous BEV about this cell; None is its middle, better
        # for new training.
        transformer=dict(num_levels=1, encoder_layers=3, rotate_center=[100, 100]),
    ),
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='MultiViewPhotometricDistortion'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=pc_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='MultiViewScale', scales=[0.5]),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='MultiViewScale', scales=[0.5]),
    dict(type='Pack3DDetInputs', keys=['img']),
]
train_dataloader = dict(dataset=dict(queue_length=3, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
load_from = None
