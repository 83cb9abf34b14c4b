# The selections of aerial_cars.py, measured by the probe, to be held against the trainings:
#   python tools/benchmark.py configs/benchmarks/aerial_cars_by_probe.py
# --cfg-options data.root=FOLDER
_base_ = './aerial_cars.py'
models = dict(
    _delete_=True,
    probe=dict(type='probe', _base_='../minidrive/faster_rcnn_lite0_minidrive.py'),
)
_filtered = dict(embedder=dict(median=5))
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    clip_dedup_filtered=dict(adadedup=dict(_filtered, strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(beta=0))),
    adadedup_filtered=dict(adadedup=dict(_filtered, feedback=dict(beta=0))),
)
