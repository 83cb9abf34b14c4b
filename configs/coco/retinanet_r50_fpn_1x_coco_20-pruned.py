_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/adadedup.py']
adadedup = dict(keep_ratio=0.8)
