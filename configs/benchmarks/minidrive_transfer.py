# Pruned with a Faster R-CNN as proxy, trained with other detectors:
#   python tools/benchmark.py configs/benchmarks/minidrive_transfer.py --jobs 2
_base_ = './minidrive.py'
models = dict(
    _delete_=True,
    retinanet='../minidrive/retinanet_lite0_minidrive.py',
    fcos='../minidrive/fcos_lite0_minidrive.py',
)
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
)
keep_ratios = [0.5]
seeds = [0, 1]
