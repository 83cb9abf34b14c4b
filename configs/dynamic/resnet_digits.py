# A narrow ResNet-18 on scikit-learn's digits, with MMPretrain: trains on a CPU in seconds.
_base_ = ['mmpretrain::_base_/models/resnet18_cifar.py', 'mmpretrain::_base_/default_runtime.py']
# The last stage keeps 2 x 2 values, so that a last batch of one image has batch statistics.
model = dict(
    backbone=dict(in_channels=1, stem_channels=16, base_channels=16, strides=(1, 2, 2, 1)),
    head=dict(in_channels=128),
)
data_preprocessor = dict(num_classes=10, mean=[78.0], std=[96.0], to_rgb=False)

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='adadedup_mm.dynamic.Digits',
        split='train',
        pipeline=[dict(type='RandomCrop', crop_size=8, padding=1), dict(type='PackInputs')],
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='adadedup_mm.dynamic.Digits', split='test', pipeline=[dict(type='PackInputs')]
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=30, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=30)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=30))
randomness = dict(seed=0)
