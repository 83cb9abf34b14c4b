# A control without duplicates: 320 drives of one frame each, so that no strategy can do more than
# choose well:   python tools/benchmark.py configs/benchmarks/minidrive_distinct.py --jobs 2
_base_ = './minidrive_quick.py'
_root = 'data/minidrive_distinct'
_coco = f'{_root}/coco/'
data = dict(_delete_=True, type='minidrive', root=_root, scenes=320, frames=1)
common = dict(
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=f'{_coco}annotations/instances_val.json'),
)
keep_ratios = [0.5]
seeds = [0, 1, 2]
