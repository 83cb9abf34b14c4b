# Is the gain over deduplication more than noise? Ten seeds that no option was chosen by, at one
# keep ratio:   python tools/benchmark.py configs/benchmarks/minidrive_seeds.py --jobs 2
_base_ = './minidrive.py'
variants = dict(
    _delete_=True,
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    vlm_sse=dict(adadedup=dict(strategy='vlm_sse')),
    adadedup=dict(adadedup=dict(feedback=dict(signal='proxy'))),
    layout_06=dict(adadedup=dict(feedback=dict(signal='proxy', layout=0.6))),
)
keep_ratios = [0.3]
seeds = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
