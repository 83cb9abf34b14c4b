# ResNet-18 on CIFAR-10: 200 epochs with the schedule of MMPretrain, batch 128, on one GPU.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=512)
test_dataloader = dict(batch_size=512)
train_cfg = dict(val_interval=10)
default_hooks = dict(checkpoint=dict(interval=50, max_keep_ckpts=1))
