# The selections of coco_folder_low.py, measured by the probe:
#   python tools/benchmark.py configs/benchmarks/coco_folder_low_by_probe.py
# --cfg-options data.root=FOLDER
_base_ = './coco_folder_low.py'
models = dict(
    _delete_=True,
    probe=dict(type='probe', _base_='../minidrive/faster_rcnn_lite0_minidrive.py'),
)
