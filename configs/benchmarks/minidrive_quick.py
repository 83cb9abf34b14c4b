# A first look in less than ten minutes on two CPU cores:
#   python tools/benchmark.py configs/benchmarks/minidrive_quick.py --jobs 2
_root = 'data/minidrive_quick'
_coco = f'{_root}/coco/'
data = dict(type='minidrive', root=_root, scenes=18, frames=20)
models = dict(faster_rcnn='../minidrive/faster_rcnn_lite0_minidrive.py')
common = dict(
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=f'{_coco}annotations/instances_val.json'),
)
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict()),
)
keep_ratios = [0.5]
seeds = [0, 1]
metric = 'coco/bbox_mAP'
