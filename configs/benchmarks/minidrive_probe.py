# Twelve strategies on twenty built-in worlds, measured by the probe instead of trained: a seed is a
# world of its own.
#   python tools/benchmark.py configs/benchmarks/minidrive_probe.py
_root = 'data/minidrive_worlds'
_coco = f'{_root}/coco/'
data = dict(type='minidrive', root=_root, scenes=30, frames=16, world_per_seed=True)
models = dict(probe=dict(type='probe', _base_='../minidrive/faster_rcnn_lite0_minidrive.py'))
common = dict(
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=f'{_coco}annotations/instances_val.json'),
)


def _feedback(**options):
    return dict(adadedup=dict(feedback=options))


variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    random_per_cluster=dict(adadedup=dict(strategy=dict(type='random', per='cluster'))),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    adadedup=dict(adadedup=dict()),
    no_feedback=_feedback(beta=0),
    auto=dict(adadedup=dict(strategy='auto')),
    no_layout=_feedback(layout=0),
    layout_06=_feedback(layout=0.6),
    semdedup_order=dict(adadedup=dict(density=dict(type='SemDeDup'))),
)
keep_ratios = [0.1, 0.2, 0.3, 0.5, 0.7]
seeds = list(range(20))
metric = 'coco/bbox_mAP'
