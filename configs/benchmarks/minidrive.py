# All strategies on the built-in world, almost four hours on two CPU cores:
#   python tools/benchmark.py configs/benchmarks/minidrive.py --jobs 2
_root = 'data/minidrive_benchmark'
_coco = f'{_root}/coco/'
data = dict(type='minidrive', root=_root, scenes=30, frames=16)
models = dict(faster_rcnn='../minidrive/faster_rcnn_lite0_minidrive.py')
common = dict(
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=f'{_coco}annotations/instances_val.json'),
)
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    random_per_cluster=dict(adadedup=dict(strategy=dict(type='random', per='cluster'))),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    loss_topk=dict(adadedup=dict(strategy='loss_topk')),
    el2n=dict(adadedup=dict(strategy='el2n')),
    grand=dict(adadedup=dict(strategy='grand')),
    # One training instead of three: asking it about all images after each epoch takes longer than
    # training it.
    forgetting=dict(adadedup=dict(strategy=dict(type='forgetting', runs=1))),
    tfdp=dict(adadedup=dict(strategy='tfdp')),
    # The paper's plain form: the difference of the mean losses, as it is.
    adadedup_plain=dict(
        adadedup=dict(feedback=dict(signal='proxy', layout=0, gap='mean', shrink=False))
    ),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
)
keep_ratios = [0.3, 0.5, 0.7]
seeds = [0, 1, 2, 3, 4]
metric = 'coco/bbox_mAP'
