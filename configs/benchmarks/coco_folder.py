# Any folder with images and COCO annotations (docs/BENCHMARKS.md says what is looked for in it):
#   python tools/benchmark.py configs/benchmarks/coco_folder.py --cfg-options data.root=FOLDER
# --jobs 2 The detector is one for a CPU, with images of 320 pixels. Another one:
#   --cfg-options data.root=FOLDER
# models.faster_rcnn=mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
data = dict(type='coco_folder', root=None)
models = dict(faster_rcnn='../minidrive/faster_rcnn_lite0_minidrive.py')
variants = dict(
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup_plain=dict(
        adadedup=dict(feedback=dict(signal='proxy', layout=0, gap='mean', shrink=False))
    ),
    adadedup=dict(adadedup=dict()),
)
keep_ratios = [0.3, 0.5, 0.7]
seeds = [0, 1, 2]
metric = 'coco/bbox_mAP'
