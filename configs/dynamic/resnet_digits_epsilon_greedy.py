_base_ = ['./resnet_digits.py', '../_base_/dynamic_epsilon_greedy.py']
dynamic = dict(period=3)
