# The setting of arXiv 2507.00049 on nuScenes, 10 to 50 % pruned; on eight GPUs, or with the flags
# for Slurm as in
# coco_faster_rcnn.py:
#   python tools/benchmark.py configs/benchmarks/nuscenes_bevformer_s.py --launcher pytorch --gpus 8
_base_ = './coco_faster_rcnn.py'
data = dict(
    _delete_=True,
    type='files',
    paths=[
        'data/nuscenes/samples',
        'data/nuscenes/v1.0-trainval',
        'data/nuscenes/nuscenes_infos_train.pkl',
        'data/nuscenes/nuscenes_infos_val.pkl',
    ],
    text='put nuScenes v1.0-trainval (https://www.nuscenes.org) into data/nuscenes/ and run '
    'tools/create_data.py of '
    'mmdet3d: nuscenes --root-path data/nuscenes --out-dir data/nuscenes --extra-tag nuscenes',
)
models = dict(_delete_=True, bevformer_s='../bevformer/bevformer_s.py')
# Half of the 56 hours on eight A100 that BEVFormer's authors name for four frames a sample; not
# measured by us.
gpu_hours = dict(_delete_=True, bevformer_s=225)
metric = 'NuScenes metric/pred_instances_3d_NuScenes/mAP'
