_base_ = ['./resnet_digits.py', '../_base_/dynamic_seta.py']
