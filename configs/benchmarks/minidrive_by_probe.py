# The selections of minidrive.py that need no trainings, measured by the probe, to be held against
# the trainings (benchmarks/probe_trust.py):
#   python tools/benchmark.py configs/benchmarks/minidrive_by_probe.py
_base_ = './minidrive.py'
models = dict(
    _delete_=True,
    probe=dict(type='probe', _base_='../minidrive/faster_rcnn_lite0_minidrive.py'),
)
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    random_per_cluster=dict(adadedup=dict(strategy=dict(type='random', per='cluster'))),
    uniform_stride=dict(adadedup=dict(strategy='uniform_stride')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    # Of the 15 proxies there, 13 changed nothing.
    adadedup=dict(adadedup=dict(feedback=dict(beta=0))),
)
