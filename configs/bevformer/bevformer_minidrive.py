# A small BEVFormer for MiniDrive that trains on a CPU: a narrow ResNet-18, 25 x 25 BEV, two layers
# each.   python tools/make_minidrive.py data/minidrive3d --scenes 6 --frames 6
#   python tools/train.py configs/bevformer/bevformer_minidrive.py
_base_ = ['mmdet3d::_base_/default_runtime.py']
custom_imports = dict(imports=['adadedup_mm.models.bevformer'], allow_failed_imports=False)

pc_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
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
    use_grid_mask=False,
    data_preprocessor=dict(
        type='Det3DDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=16,
    ),
    # Group norm: trained from nothing on a few pictures at a time.
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        frozen_stages=-1,
        norm_cfg=dict(type='GN', num_groups=8),
        norm_eval=False,
    ),
    img_neck=dict(type='mmdet.FPN', in_channels=[32, 64], out_channels=64, num_outs=2),
    pts_bbox_head=dict(
        type='BEVFormerHead',
        num_classes=10,
        pc_range=pc_range,
        post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
        bev_h=25,
        bev_w=25,
        num_query=100,
        max_num=100,
        transformer=dict(
            type='BEVFormerTransformer',
            embed_dims=64,
            num_cams=6,
            num_levels=2,
            encoder_layers=2,
            decoder_layers=2,
            ffn_channels=128,
            dropout=0.0,
        ),
    ),
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=pc_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [dict(type='LoadMultiViewImages'), dict(type='Pack3DDetInputs', keys=['img'])]

data_root = 'data/minidrive3d/nuscenes/'
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BEVFormerDataset',
        data_root=data_root,
        ann_file='nuscenes_infos_temporal_train.pkl',
        queue_length=2,
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
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
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=0, end=12, T_max=12, by_epoch=True, eta_min_ratio=1e-2),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict()
test_cfg = dict()
