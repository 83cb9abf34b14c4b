_base_ = ['./bevformer_tiny.py', '../_base_/adadedup.py']
adadedup = dict(keep_ratio=0.8)
