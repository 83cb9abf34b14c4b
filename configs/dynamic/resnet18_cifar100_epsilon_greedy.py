# 30, 50 or 70 % pruned: --cfg-options dynamic.keep_ratio=.7, .5 or .3
_base_ = ['./resnet18_cifar100.py', '../_base_/dynamic_epsilon_greedy.py']
