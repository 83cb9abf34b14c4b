# The setting of arXiv 2507.00049 on COCO, 10 to 50 % pruned; on the eight GPUs of a machine, or
# under Slurm:   python tools/benchmark.py configs/benchmarks/coco_faster_rcnn.py --launcher pytorch
# --gpus 8   python tools/benchmark.py configs/benchmarks/coco_faster_rcnn.py --launcher slurm
# --partition NAME --gpus 8 --jobs 4
data = dict(
    type='files',
    paths=[
        'data/coco/annotations/instances_train2017.json',
        'data/coco/annotations/instances_val2017.json',
        'data/coco/train2017',
        'data/coco/val2017',
    ],
    text='unpack annotations_trainval2017.zip, train2017.zip and val2017.zip '
    '(https://cocodataset.org) into data/coco/',
)
models = dict(faster_rcnn='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
# About 0.21 s a step on eight V100, as published for this detector: 90 000 steps.
gpu_hours = dict(faster_rcnn=42)
pruning_base = '../_base_/adadedup.py'
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    adadedup_plain=dict(
        adadedup=dict(feedback=dict(signal='proxy', layout=0, gap='mean', shrink=False))
    ),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
)
keep_ratios = [0.9, 0.8, 0.7, 0.6, 0.5]
seeds = [0]
metric = 'coco/bbox_mAP'
