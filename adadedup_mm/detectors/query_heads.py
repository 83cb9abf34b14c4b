"""Heads over object queries: DETR, Deformable DETR and DINO."""

from .heads import HeadFamily, LossElements, equal_runs, register_family

_CRITERIA = ('loss_cls', 'loss_bbox', 'loss_iou')

register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.DINOHead',
        elements=LossElements(
            methods=('loss_by_feat_single', '_loss_dn_single'),
            owners=equal_runs,
            criteria=_CRITERIA,
        ),
    )
)
register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.DETRHead',
        elements=LossElements(
            methods=('loss_by_feat_single',), owners=equal_runs, criteria=_CRITERIA
        ),
        variants=('mmdet.models.dense_heads.DeformableDETRHead',),
        summed_by=('mmdet.models.detectors.DetectionTransformer',),
    )
)
