# Any folder with images and COCO annotations, measured by the probe instead of trained:
#   python tools/benchmark.py configs/benchmarks/coco_folder_probe.py --cfg-options data.root=FOLDER
_base_ = './coco_folder.py'
models = dict(
    _delete_=True,
    probe=dict(type='probe', _base_='../minidrive/faster_rcnn_lite0_minidrive.py'),
)
variants = dict(
    random_per_cluster=dict(adadedup=dict(strategy=dict(type='random', per='cluster'))),
    no_feedback=dict(adadedup=dict(feedback=dict(beta=0))),
    no_layout=dict(adadedup=dict(feedback=dict(layout=0))),
    semdedup_order=dict(adadedup=dict(density=dict(type='SemDeDup'))),
)
keep_ratios = [0.1, 0.2, 0.3, 0.5, 0.7]
seeds = [0, 1, 2, 3, 4]
