# What tools/quickstart.sh runs: MiniDrive without its redundant 30 %.
_base_ = ['./faster_rcnn_minidrive.py', '../_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=0.7)
