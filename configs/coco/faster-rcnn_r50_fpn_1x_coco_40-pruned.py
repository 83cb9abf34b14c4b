_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/adadedup.py']
adadedup = dict(keep_ratio=0.6)
