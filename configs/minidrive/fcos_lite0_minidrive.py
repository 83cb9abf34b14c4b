# A detector without anchors in place of the Faster R-CNN.
_base_ = './faster_rcnn_lite0_minidrive.py'
model = dict(
    _delete_=True,
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(type='FrozenLite0', remember=1500),
    neck=dict(type='FPN', in_channels=[24, 40, 112, 320], out_channels=32, num_outs=4),
    bbox_head=dict(
        type='FCOSHead', num_classes=6, in_channels=32, feat_channels=32, stacked_convs=2, norm_cfg=None,
        strides=[4, 8, 16, 32], regress_ranges=((-1, 32), (32, 64), (64, 128), (128, 1e8)), center_sampling=True,
        norm_on_bbox=True, centerness_on_reg=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2., alpha=.25, loss_weight=1.),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.)),
    test_cfg=dict(nms_pre=500, min_bbox_size=0, score_thr=.05, nms=dict(type='nms', iou_threshold=.5),
                  max_per_img=100))
