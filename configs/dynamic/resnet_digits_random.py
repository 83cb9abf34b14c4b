_base_ = ['./resnet_digits.py', '../_base_/dynamic_random.py']
dynamic = dict(period=3)
