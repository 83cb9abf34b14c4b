# Five times the data and 40 frames a scene, as real drives have them:
#   python tools/benchmark.py configs/benchmarks/minidrive_large.py --jobs 2
_base_ = './minidrive.py'
_root = 'data/minidrive_large'
_coco = f'{_root}/coco/'
data = dict(_delete_=True, type='minidrive', root=_root, scenes=60, frames=40)
_epochs = 12
common = dict(
    model=dict(backbone=dict(remember=4000)),
    train_cfg=dict(max_epochs=_epochs, val_interval=_epochs),
    param_scheduler=[
        dict(type='LinearLR', start_factor=.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=_epochs, T_max=_epochs, eta_min_ratio=.01,
             convert_to_iter_based=True)],
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=f'{_coco}annotations/instances_val.json'))
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict()))
keep_ratios = [.3]
seeds = [0, 1, 2]
