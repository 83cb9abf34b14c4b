# ResNet-18 on CIFAR-100: the schedule of MMPretrain's ResNet-50, batch 128, on one GPU.
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    'mmpretrain::_base_/datasets/cifar100_bs16.py',
    'mmpretrain::_base_/schedules/cifar10_bs128.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=512)
test_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = dict(milestones=[60, 120, 160], gamma=0.2)
train_cfg = dict(val_interval=10)
default_hooks = dict(checkpoint=dict(interval=50, max_keep_ckpts=1))
