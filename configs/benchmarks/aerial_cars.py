# Drone frames with cars: 498 images of 416 x 416 pixels for training, most of them noisy copies and
# neighbouring frames of others, 76 for validation (CC BY 4.0, a dataset of the
# Autonomous-VTOL-Design project, Cankaya University), as a COCO folder; with and without a filter
# against the noise of the copies:   python tools/benchmark.py configs/benchmarks/aerial_cars.py
# --cfg-options data.root=FOLDER --jobs 2
_base_ = './coco_folder.py'
_load = dict(type='LoadImageFromFile')
_annotations = dict(type='LoadAnnotations', with_bbox=True)
# Half of the cars are smaller than 15 pixels; at 320 x 320, most would be smaller than the smallest
# anchor.
_resize = dict(type='Resize', scale=(512, 512), keep_ratio=True)
models = dict(
    _delete_=True,
    faster_rcnn=dict(
        _base_='../minidrive/faster_rcnn_lite0_minidrive.py',
        model=dict(
            train_cfg=dict(rpn_proposal=dict(max_per_img=100), rcnn=dict(sampler=dict(num=64)))
        ),
        train_dataloader=dict(
            dataset=dict(
                pipeline=[
                    _load,
                    _annotations,
                    _resize,
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackDetInputs'),
                ]
            )
        ),
        val_dataloader=dict(
            dataset=dict(
                pipeline=[
                    _load,
                    _resize,
                    _annotations,
                    dict(
                        type='PackDetInputs',
                        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                    ),
                ]
            )
        ),
    ),
)
_filtered = dict(embedder=dict(median=5))
_schedule = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=7,
        T_max=7,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
variants = dict(
    _delete_=True,
    full=dict(),
    # As many steps as 30 % of the samples get.
    full_7_epochs=dict(train_cfg=dict(max_epochs=7, val_interval=7), param_scheduler=_schedule),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    clip_dedup_filtered=dict(adadedup=dict(_filtered, strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
    adadedup_filtered=dict(adadedup=dict(_filtered, feedback=dict(signal='proxy'))),
)
keep_ratios = [0.3, 0.5]
seeds = [0, 1, 2]
