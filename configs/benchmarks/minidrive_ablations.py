# What each part and each setting of AdaDeDup does, at one keep ratio:
#   python tools/benchmark.py configs/benchmarks/minidrive_ablations.py --jobs 2
_base_ = './minidrive.py'


def _feedback(**options):
    return dict(adadedup=dict(feedback=dict(options, signal='proxy')))


variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
    no_proxy=_feedback(beta=0),
    no_layout=_feedback(layout=0),
    layout_06=_feedback(layout=0.6),
    no_shrinkage=_feedback(shrink=False),
    gap_mean=_feedback(gap='mean', shrink=False),
    gap_held_out=dict(
        adadedup=dict(
            feedback=dict(signal='proxy', gap='held_out', shrink=False), proxy=dict(held_out=0.2)
        )
    ),
    beta_1=_feedback(beta=1.0, shrink=False),
    only_informative=_feedback(alpha_minus=0, shrink=False),
    initial_07=_feedback(initial_ratio=0.7, shrink=False),
    semdedup_order=dict(
        adadedup=dict(feedback=dict(signal='proxy'), density=dict(type='SemDeDup'))
    ),
    clusters_10=dict(adadedup=dict(feedback=dict(signal='proxy'), clusterer=dict(num_clusters=10))),
    clusters_74=dict(adadedup=dict(feedback=dict(signal='proxy'), clusterer=dict(num_clusters=74))),
    proxy_4_epochs=dict(
        adadedup=dict(feedback=dict(signal='proxy', shrink=False), proxy=dict(epochs=4))
    ),
    proxy_resnet=dict(
        adadedup=dict(
            feedback=dict(signal='proxy', shrink=False),
            proxy=dict(config='adadedup_mm::proxy/faster_rcnn_r18_narrow.py'),
        )
    ),
    pixels=dict(
        adadedup=dict(
            embedder=dict(_delete_=True, type='PixelEmbedder'), feedback=dict(signal='proxy')
        )
    ),
    random_features=dict(
        adadedup=dict(
            embedder=dict(_delete_=True, type='RandomEmbedder'), feedback=dict(signal='proxy')
        )
    ),
)
keep_ratios = [0.5]
seeds = [0, 1, 2]
compare_with = 'adadedup'
