# The same as adadedup.py with an embedder that needs no network and a proxy small enough for a CPU.
adadedup = dict(
    keep_ratio=0.8,
    strategy=dict(type='adadedup'),
    embedder=dict(type='OfflineEmbedder'),
    clusterer=dict(type='SphericalKMeans'),
    density=dict(type='KCenter'),
    proxy=dict(config='adadedup_mm::proxy/faster_rcnn_tiny.py'),
)
runner_type = 'adadedup_mm.engine.AdaDeDupRunner'
