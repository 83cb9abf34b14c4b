_base_ = ['../minidrive/faster_rcnn_minidrive.py', '../_base_/dynamic_ucb.py']
dynamic = dict(period=2)
