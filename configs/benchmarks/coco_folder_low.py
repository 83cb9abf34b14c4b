# A folder with COCO annotations at a low keep ratio, trained; coco_folder_low_by_probe.py measures
# the same selections by the probe:
#   python tools/benchmark.py configs/benchmarks/coco_folder_low.py --cfg-options data.root=FOLDER
_base_ = './coco_folder.py'
variants = dict(
    _delete_=True,
    random=dict(adadedup=dict(strategy='random')),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    adadedup=dict(adadedup=dict(feedback=dict(beta=0))),
)
keep_ratios = [0.1]
seeds = [0, 1]
