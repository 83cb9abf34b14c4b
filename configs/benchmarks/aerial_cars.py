# Drone frames with cars: 498 images of 416 x 416 pixels for training, up to three noisy copies of each frame, 76 for
# validation (CC BY 4.0, a dataset of the Autonomous-VTOL-Design project, Cankaya University), as a COCO folder:
#   python tools/benchmark.py configs/benchmarks/aerial_cars.py --cfg-options data.root=FOLDER --jobs 2
_base_ = './coco_folder.py'
variants = dict(
    _delete_=True,
    full=dict(),
    random=dict(adadedup=dict(strategy='random')),
    clip_dedup=dict(adadedup=dict(strategy='clip_dedup')),
    adadedup=dict(adadedup=dict()))
