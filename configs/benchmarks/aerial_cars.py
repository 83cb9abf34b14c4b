# Drone frames with cars: 498 images of 416 x 416 pixels for training, up to three noisy copies of each frame, 76 for
# validation (CC BY 4.0, a dataset of the Autonomous-VTOL-Design project, Cankaya University), as a COCO folder:
#   python tools/benchmark.py configs/benchmarks/aerial_cars.py --cfg-options data.root=FOLDER --jobs 2
_base_ = './coco_folder.py'
# One class of one size is learned in half of the epochs.
common = dict(
    train_cfg=dict(max_epochs=12, val_interval=12),
    param_scheduler=[
        dict(type='LinearLR', start_factor=.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=12, T_max=12, eta_min_ratio=.01,
             convert_to_iter_based=True)])
