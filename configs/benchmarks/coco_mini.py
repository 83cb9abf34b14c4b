# A control: 140 images of COCO with 1,000 objects of its 80 classes, as a COCO folder; too few to
# learn from.   python tools/benchmark.py configs/benchmarks/coco_mini.py --cfg-options
# data.root=FOLDER --jobs 2
_base_ = './coco_folder.py'
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
)
keep_ratios = [0.5]
