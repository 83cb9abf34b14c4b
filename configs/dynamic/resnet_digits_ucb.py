_base_ = ['./resnet_digits.py', '../_base_/dynamic_ucb.py']
dynamic = dict(period=3)
