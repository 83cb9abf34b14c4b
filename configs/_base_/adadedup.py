# The line to add to a config: prunes the training set before training. README.md explains every
# key.
adadedup = dict(
    keep_ratio=0.8,
    strategy=dict(type='adadedup'),
    embedder=dict(type='OpenCLIPEmbedder'),
    clusterer=dict(type='SphericalKMeans'),
    density=dict(type='KCenter'),
    proxy=dict(config='adadedup_mm::proxy/faster_rcnn_r18_small.py'),
)
runner_type = 'adadedup_mm.engine.AdaDeDupRunner'
