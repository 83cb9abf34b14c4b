# BEVFormer-base on nuScenes, as published (arXiv 2203.17270): ResNet-101-DCN, 200 x 200 BEV, full
# resolution.
# Infos: nuscenes_infos_temporal_{train,val}.pkl of BEVFormer's tools/create_data.py, with the CAN
# bus expansion. Weights to start from: r101_dcn_fcos3d_pretrain.pth of the BEVFormer repository.
# Published weights load as they are:   mim test mmdet3d configs/bevformer/bevformer_base.py
# --checkpoint bevformer_r101_dcn_24ep.pth
_base_ = ['mmdet3d::_base_/default_runtime.py']
custom_imports = dict(imports=['adadedup_mm.models.bevformer'], allow_failed_imports=False)

pc_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
# Not the order of mmdet3d's nuScenes configs, but that of the published weights.
classes = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]

model = dict(
    type='BEVFormer',
    data_preprocessor=dict(
        type='Det3DDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN2d', requires_grad=False),
        norm_eval=True,
        style='caffe',
        with_cp=True,
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        num_outs=4,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
    ),
    pts_bbox_head=dict(
        type='BEVFormerHead',
        num_classes=10,
        pc_range=pc_range,
        post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
        bev_h=200,
        bev_w=200,
        transformer=dict(
            type='BEVFormerTransformer',
            embed_dims=256,
            num_cams=6,
            num_levels=4,
            encoder_layers=6,
            decoder_layers=6,
        ),
    ),
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='MultiViewPhotometricDistortion'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=pc_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [dict(type='LoadMultiViewImages'), dict(type='Pack3DDetInputs', keys=['img'])]

data_root = 'data/nuscenes/'
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BEVFormerDataset',
        data_root=data_root,
        ann_file='nuscenes_infos_temporal_train.pkl',
        queue_length=4,
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    ),
)
# Each process walks through whole drives: a frame's history is the frame before it.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='ContiguousSampler'),
    dataset=dict(
        type='BEVFormerDataset',
        data_root=data_root,
        ann_file='nuscenes_infos_temporal_val.pkl',
        test_mode=True,
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='BEVFormerNuScenesMetric',
    data_root=data_root,
    ann_file=data_root + 'nuscenes_infos_temporal_val.pkl',
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, begin=0, end=500, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=0, end=24, T_max=24, by_epoch=True, eta_min_ratio=1e-3),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=24, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=1))
# The learning rate is for 8 GPUs with one sample each.
auto_scale_lr = dict(enable=False, base_batch_size=8)
load_from = 'ckpts/r101_dcn_fcos3d_pretrain.pth'
