# BEVFormer-S on nuScenes: the static variant of BEVFormer-base, which sees single frames. It needs
# no CAN bus, so the infos of mmdet3d's tools/create_data.py (nuscenes_infos_{train,val}.pkl) will
# do; temporal infos work as well. With mmdet3d's infos its own NuScenesDataset and NuScenesMetric
# can stand in for the two types.
_base_ = ['./bevformer_base.py']

model = dict(
    temporal=False,
    pts_bbox_head=dict(transformer=dict(use_can_bus=False, use_shift=False, rotate_prev_bev=False)),
)

camera_prefix = {
    name: f'samples/{name}'
    for name in (
        'CAM_FRONT',
        'CAM_FRONT_RIGHT',
        'CAM_FRONT_LEFT',
        'CAM_BACK',
        'CAM_BACK_LEFT',
        'CAM_BACK_RIGHT',
    )
}
train_dataloader = dict(
    dataset=dict(queue_length=1, ann_file='nuscenes_infos_train.pkl', data_prefix=camera_prefix)
)
val_dataloader = dict(dataset=dict(ann_file='nuscenes_infos_val.pkl', data_prefix=camera_prefix))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/nuscenes/nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
