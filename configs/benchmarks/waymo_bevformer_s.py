# The setting of arXiv 2507.00049 on Waymo, 10 to 50 % pruned; on eight GPUs, or with the flags for
# Slurm as in
# coco_faster_rcnn.py:
#   python tools/benchmark.py configs/benchmarks/waymo_bevformer_s.py --launcher pytorch --gpus 8
_base_ = './coco_faster_rcnn.py'
_root = 'data/waymo'
data = dict(
    _delete_=True,
    type='files',
    paths=[
        f'{_root}/kitti_format/training',
        f'{_root}/kitti_format/waymo_infos_train.pkl',
        f'{_root}/kitti_format/waymo_infos_val.pkl',
        f'{_root}/waymo_format/cam_gt.bin',
        # Where mmdet3d looks for it, from the folder in which the benchmark is started.
        'mmdet3d/evaluation/functional/waymo_utils/compute_detection_let_metrics_main',
    ],
    text='put the Waymo Open Dataset (https://waymo.com/open) into data/waymo/waymo_format/ and '
    'convert it as the page '
    'on Waymo in the documentation of mmdet3d says; it explains the evaluation, too',
)
models = dict(_delete_=True, bevformer_s='../bevformer/bevformer_s_waymo.py')
# From nuScenes' by the number of frames, cameras and BEV cells; not measured by us.
gpu_hours = dict(_delete_=True, bevformer_s=270)
metric = 'Waymo metric/Overall mAPL'
