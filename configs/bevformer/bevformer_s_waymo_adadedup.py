_base_ = ['./bevformer_s_waymo.py', '../_base_/adadedup.py']
adadedup = dict(keep_ratio=0.8)
