# The built-in world in 3D, a small BEVFormer-S, about forty minutes on two CPU cores:
#   python tools/benchmark.py configs/benchmarks/minidrive_bevformer_s.py --jobs 2
_root = 'data/minidrive_benchmark_3d'
_nuscenes = f'{_root}/nuscenes/'
data = dict(type='minidrive', root=_root, scenes=24, frames=20, formats=['nuscenes'])
models = dict(
    bevformer_s=dict(
        _base_='../bevformer/bevformer_minidrive.py',
        custom_imports=dict(imports=['adadedup_mm.models.bevformer', 'adadedup_mm.models.lite0']),
        model=dict(
            temporal=False,
            # Only the part behind a frozen backbone can learn anything from so few frames in so
            # short a time.
            data_preprocessor=dict(
                mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_size_divisor=32
            ),
            img_backbone=dict(_delete_=True, type='mmdet.FrozenLite0', remember=4000),
            img_neck=dict(in_channels=[24, 40, 112, 320], start_level=2, end_level=2, num_outs=1),
            pts_bbox_head=dict(
                transformer=dict(
                    encoder_layers=1,
                    num_levels=1,
                    use_can_bus=False,
                    use_shift=False,
                    rotate_prev_bev=False,
                )
            ),
        ),
        train_cfg=dict(max_epochs=24, val_interval=24),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
            dict(
                type='CosineAnnealingLR',
                begin=0,
                end=24,
                T_max=24,
                by_epoch=True,
                eta_min_ratio=1e-2,
            ),
        ],
        # No workers: they would compete with the training for the same cores.
        train_dataloader=dict(
            num_workers=0,
            persistent_workers=False,
            dataset=dict(data_root=_nuscenes, queue_length=1),
        ),
        val_dataloader=dict(
            num_workers=0, persistent_workers=False, dataset=dict(data_root=_nuscenes)
        ),
        val_evaluator=dict(
            data_root=_nuscenes, ann_file=f'{_nuscenes}nuscenes_infos_temporal_val.pkl'
        ),
    )
)
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
)
keep_ratios = [0.5]
seeds = [0, 1, 2]
# Boxes within four metres: nearer ones, and so mAP, are beyond a detector as small as this one.
metric = 'NuScenes metric/pred_instances_3d_NuScenes/car_AP_dist_4.0'
