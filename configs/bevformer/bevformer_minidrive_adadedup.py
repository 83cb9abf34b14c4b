_base_ = ['./bevformer_minidrive.py', '../_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=0.8)
