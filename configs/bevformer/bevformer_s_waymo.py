# BEVFormer-S on Waymo: five cameras, three classes, the paper's area of 110 m x 150 m in cells of
# half a metre. Data and infos as mmdet3d lays them out (its page on Waymo). The evaluation needs
# waymo-open-dataset and Waymo's binary compute_detection_let_metrics_main, which that page explains
# too; to train without it:   --cfg-options val_cfg=None val_dataloader=None val_evaluator=None
_base_ = ['./bevformer_s.py']

pc_range = [-35.0, -75.0, -2.0, 75.0, 75.0, 4.0]
classes = ['Car', 'Pedestrian', 'Cyclist']

model = dict(
    pts_bbox_head=dict(
        num_classes=3,
        pc_range=pc_range,
        post_center_range=[-45.0, -85.0, -10.0, 85.0, 85.0, 10.0],
        bev_h=300,
        bev_w=220,
        # Boxes without velocity.
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        transformer=dict(num_cams=5),
    )
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='MultiViewPhotometricDistortion'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=pc_range),
    dict(type='ObjectNameFilter', classes=classes),
    dict(type='MultiViewScale', scales=[0.6]),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='MultiViewScale', scales=[0.6]),
    dict(
        type='Pack3DDetInputs',
        keys=['img'],
        meta_keys=[
            'img_path',
            'img_shape',
            'lidar2img',
            'box_type_3d',
            'sample_idx',
            'context_name',
            'timestamp',
        ],
    ),
]

data_root = 'data/waymo/kitti_format/'
waymo_prefix = dict(
    pts='training/velodyne',
    CAM_FRONT='training/image_0',
    CAM_FRONT_LEFT='training/image_1',
    CAM_FRONT_RIGHT='training/image_2',
    CAM_SIDE_LEFT='training/image_3',
    CAM_SIDE_RIGHT='training/image_4',
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='WaymoDataset',
        data_root=data_root,
        ann_file='waymo_infos_train.pkl',
        data_prefix=waymo_prefix,
        modality=dict(use_camera=True),
        metainfo=dict(classes=classes),
        # Objects that the cameras see, labelled at the time of the images; every fifth frame, as in
        # mmdet3d's configs.
        cam_sync_instances=True,
        load_interval=5,
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=False),
    dataset=dict(
        _delete_=True,
        type='WaymoDataset',
        data_root=data_root,
        ann_file='waymo_infos_val.pkl',
        data_prefix=waymo_prefix,
        modality=dict(use_camera=True),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='WaymoMetric',
    waymo_bin_file='data/waymo/waymo_format/cam_gt.bin',
    metric='LET_mAP',
)
test_evaluator = val_evaluator
