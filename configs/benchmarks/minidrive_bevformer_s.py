# The built-in world in 3D, a small BEVFormer-S:
#   python tools/benchmark.py configs/benchmarks/minidrive_bevformer_s.py --jobs 2
_root = 'data/minidrive_benchmark_3d'
_nuscenes = f'{_root}/nuscenes/'
data = dict(type='minidrive', root=_root, scenes=24, frames=20, formats=['nuscenes'])
models = dict(bevformer_s=dict(
    _base_='../bevformer/bevformer_minidrive.py',
    model=dict(
        temporal=False,
        pts_bbox_head=dict(transformer=dict(use_can_bus=False, use_shift=False, rotate_prev_bev=False))),
    # No workers: they would compete with the training for the same cores.
    train_dataloader=dict(
        num_workers=0, persistent_workers=False, dataset=dict(data_root=_nuscenes, queue_length=1)),
    val_dataloader=dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=_nuscenes)),
    val_evaluator=dict(data_root=_nuscenes, ann_file=f'{_nuscenes}nuscenes_infos_temporal_val.pkl')))
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup_plain=dict(adadedup=dict(feedback=dict(layout=0, gap='mean', shrink=False))),
    adadedup=dict(adadedup=dict()))
keep_ratios = [.5]
seeds = [0, 1, 2]
metric = 'NuScenes metric/pred_instances_3d_NuScenes/mAP'
