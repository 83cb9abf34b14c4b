"""BEVFormer against arrays that the official code computed, and what that code cannot do."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

import adadedup_mm.models.bevformer  # noqa: F401
from adadedup_mm.base.errors import UserError
from adadedup_mm.models.bevformer.coder import decode_boxes, encode_boxes, select_boxes
from adadedup_mm.models.bevformer.geometry import (
    bev_centres,
    ego_shift,
    pillar_points,
    project,
    rotate_bev,
)
from adadedup_mm.models.bevformer.losses import match

HERE = Path(__file__).parent / 'data' / 'bevformer'
SHARED = Path(__file__).parents[2] / 'shared' / 'bevformer_oracle'
PC_RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
POST_RANGE = [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]
SIZES = {
    'tiny_like': dict(embed=32, bev=(10, 10), levels=1, centre=[6, 4]),
    'two_level': dict(embed=64, bev=(10, 14), levels=2, centre=[8, 4]),
}


@cache
def oracle(name: str) -> dict[str, np.ndarray]:
    path = HERE / f'{name}.npz' if (HERE / f'{name}.npz').exists() else SHARED / f'{name}.npz'
    if not path.exists():
        pytest.skip(f'{path.name} is not part of the repository')
    with np.load(path) as arrays:
        return dict(arrays)


def build(name: str = 'tiny_like', **changes: Any) -> torch.nn.Module:
    size = SIZES[name]
    embed, levels = size['embed'], size['levels']
    transformer = dict(
        type='BEVFormerTransformer',
        embed_dims=embed,
        num_levels=levels,
        encoder_layers=2,
        decoder_layers=2,
        ffn_channels=2 * embed,
        dropout=0.0,
        rotate_center=size['centre'],
    )
    transformer.update(changes)
    config = dict(
        type='BEVFormer',
        use_grid_mask=False,
        data_preprocessor=dict(type='Det3DDataPreprocessor'),
        img_backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=8,
            out_indices=(3,) if levels == 1 else (2, 3),
            frozen_stages=1,
            norm_cfg=dict(type='BN2d', requires_grad=False),
            norm_eval=True,
        ),
        img_neck=dict(
            type='mmdet.FPN',
            in_channels=[64] if levels == 1 else [32, 64],
            out_channels=embed,
            num_outs=levels,
            add_extra_convs='on_output',
            relu_before_extra_convs=True,
        ),
        pts_bbox_head=dict(
            type='BEVFormerHead',
            num_classes=10,
            transformer=transformer,
            pc_range=PC_RANGE,
            num_query=20,
            bev_h=size['bev'][0],
            bev_w=size['bev'][1],
            post_center_range=POST_RANGE,
            max_num=50,
        ),
    )
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(config)
    weights = {key: torch.from_numpy(value) for key, value in oracle(f'{name}_weights').items()}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def close(got: Any, want: np.ndarray, atol: float = 1e-4, rtol: float = 1e-4) -> None:
    got = got.detach().numpy() if isinstance(got, Tensor) else np.asarray(got)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=atol, rtol=rtol)


def forward(
    model: torch.nn.Module, name: str, frame: int, can_bus: np.ndarray | None = None
) -> tuple[Any, ...]:
    first, arrays = oracle(f'{name}_forward_f1'), oracle(f'{name}_forward_f{frame}')
    features = [torch.from_numpy(arrays[f'feat{level}']) for level in range(SIZES[name]['levels'])]
    meta = dict(
        lidar2img=first['lidar2img'], can_bus=arrays['can_bus'] if can_bus is None else can_bus
    )
    prev = torch.from_numpy(arrays['prev_bev']).transpose(0, 1) if frame == 2 else None
    head = model.pts_bbox_head
    with torch.no_grad():
        bev = head.encode(features, [meta], tuple(int(n) for n in first['img_shape'][0][:2]), prev)
        logits, codes = head.decode(bev)
    return bev, torch.stack(logits), torch.stack(codes)


def record_layers(model: torch.nn.Module) -> dict[str, Tensor]:
    """What every part of every layer returns, under the oracle's names."""
    found: dict[str, Tensor] = {}

    def watch(module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _module, _args, out: found.__setitem__(name, out))

    transformer = model.pts_bbox_head.transformer
    for i, layer in enumerate(transformer.encoder.layers):
        for part, key in zip(
            (*layer.attentions, *layer.norms, layer.ffns[0]),
            ('tsa', 'sca', 'norm0', 'norm1', 'out', 'ffn'),
            strict=True,
        ):
            watch(part, f'mid_enc{i}_{key}')
    for i, layer in enumerate(transformer.decoder.layers):
        for part, key in zip(
            (*layer.attentions, layer.norms[2]), ('self_attn', 'cross_attn', 'out'), strict=True
        ):
            watch(part, f'mid_dec{i}_{key}')
    watch(transformer.can_bus_mlp, 'mid_can_bus_embed')
    return found


@pytest.mark.parametrize('frame', [1, 2])
@pytest.mark.parametrize('name', SIZES)
def test_forward_equals_the_official_code(name: str, frame: int) -> None:
    model = build(name)
    found = record_layers(model)
    arrays = oracle(f'{name}_forward_f{frame}')
    bev, logits, codes = forward(model, name, frame)
    assert len(found) == 19
    for key, value in found.items():
        close(value.transpose(0, 1) if '_dec' in key else value, arrays[key])
    close(bev.transpose(0, 1), arrays['out_bev_embed'])
    close(logits, arrays['out_all_cls_scores'], atol=5e-5)
    close(codes, arrays['out_all_bbox_preds'], atol=5e-4)


@pytest.mark.parametrize(
    ('variant', 'changes'),
    [
        ('rc100', dict(rotate_center=[100, 100])),
        ('norot', dict(rotate_prev_bev=False)),
        ('noshift', dict(use_shift=False)),
        ('nocanbus', dict(use_can_bus=False)),
    ],
)
@pytest.mark.parametrize('name', SIZES)
def test_switches_equal_the_official_code(name: str, variant: str, changes: dict[str, Any]) -> None:
    arrays = oracle(f'{name}_forward_f2')
    bev, logits, codes = forward(
        build(name, **changes), name, 2, arrays.get(f'var_{variant}_can_bus')
    )
    close(bev.transpose(0, 1), arrays[f'var_{variant}_bev_embed'])
    close(logits, arrays[f'var_{variant}_all_cls_scores'], atol=5e-5)
    close(codes, arrays[f'var_{variant}_all_bbox_preds'], atol=5e-4)


@pytest.mark.parametrize('name', SIZES)
def test_geometry_equals_the_official_code(name: str) -> None:
    first, second = oracle(f'{name}_forward_f1'), oracle(f'{name}_forward_f2')
    shape = SIZES[name]['bev']
    points, visible = project(
        pillar_points(*shape, 4, PC_RANGE),
        torch.from_numpy(first['lidar2img'])[None],
        tuple(first['img_shape'][0][:2]),
    )
    np.testing.assert_array_equal(visible.transpose(0, 1).numpy(), first['mid_bev_mask'])
    seen = first['mid_bev_mask']
    close(
        points.transpose(0, 1).numpy()[seen],
        first['mid_reference_points_cam'][seen],
        atol=1e-5,
        rtol=0,
    )
    shift = ego_shift(second['can_bus'][None], PC_RANGE)
    close(shift, second['mid_shift'], atol=1e-7)
    hybrid = np.stack([bev_centres(*shape) + shift, bev_centres(*shape)])[:, :, None]
    close(hybrid, second['mid_ref_2d_hybrid'], atol=1e-6)
    for centre, case in ((SIZES[name]['centre'], 'mid'), ([100, 100], 'var_rc100')):
        angle = second['var_rc100_can_bus' if case == 'var_rc100' else 'can_bus'][-1]
        turned = rotate_bev(
            torch.from_numpy(second['prev_bev']).transpose(0, 1), [angle], shape, centre
        )
        np.testing.assert_array_equal(
            turned.transpose(0, 1).numpy(), second[f'{case}_prev_bev_rotated']
        )


@pytest.mark.parametrize('name', SIZES)
def test_a_batch_gives_what_its_samples_give_alone(name: str) -> None:
    """Frames of different cameras, one with and one without history."""
    model, first, second = build(name), oracle(f'{name}_forward_f1'), oracle(f'{name}_forward_f2')
    alone = [forward(model, name, frame) for frame in (1, 2)]
    features = [
        torch.from_numpy(np.concatenate([first[f'feat{i}'], second[f'feat{i}']]))
        for i in range(SIZES[name]['levels'])
    ]
    metas = [
        dict(lidar2img=first['lidar2img'], can_bus=arrays['can_bus']) for arrays in (first, second)
    ]
    prev = torch.from_numpy(second['prev_bev']).transpose(0, 1)
    head, size = model.pts_bbox_head, tuple(int(n) for n in first['img_shape'][0][:2])
    with torch.no_grad():
        bev = head.encode(
            features, metas, size, torch.cat([torch.full_like(prev, 7), prev]), [False, True]
        )
        logits, codes = head.decode(bev)
        # Cameras in another order see other things: the second sample must not be judged by the
        # first one's view.
        turned = dict(metas[1], lidar2img=first['lidar2img'][::-1].copy())
        mixed = head.encode(
            features, [turned, metas[1]], size, torch.cat([prev, prev]), [True, True]
        )
        turned_alone = head.encode([level[:1] for level in features], [turned], size, prev)
    for i in range(2):
        close(bev[i : i + 1], alone[i][0].numpy(), atol=2e-5)
        close(torch.stack(logits)[:, i : i + 1], alone[i][1].numpy(), atol=2e-5)
        close(torch.stack(codes)[:, i : i + 1], alone[i][2].numpy(), atol=5e-4)
    close(mixed[1:], alone[1][0].numpy(), atol=2e-5)
    close(mixed[:1], turned_alone.numpy(), atol=2e-5)


def old_boxes(boxes: np.ndarray) -> LiDARInstance3DBoxes:
    """The oracle's boxes (gravity centre, w, l, h, yaw of mmdet3d 0.x, velocity) in mmdet3d 1.x."""
    new = torch.from_numpy(boxes[:, [0, 1, 2, 4, 3, 5, 6, 7, 8]].copy())
    new[:, 6] = -new[:, 6] - np.pi / 2
    return LiDARInstance3DBoxes(new, box_dim=9, origin=(0.5, 0.5, 0.5))


def truths(arrays: dict[str, np.ndarray], case: str) -> list[InstanceData]:
    count = 2 if case == 'bs2' else 1
    return [
        InstanceData(
            bboxes_3d=old_boxes(arrays[f'{case}_gt{i}_boxes_gravity']),
            labels_3d=torch.from_numpy(arrays[f'{case}_gt{i}_labels']),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize('case', ['bs1', 'bs2', 'nanvel', 'near', 'manygt'])
@pytest.mark.parametrize('name', SIZES)
def test_losses_and_gradients_equal_the_official_code(name: str, case: str) -> None:
    arrays, head = oracle(f'{name}_loss'), build(name).pts_bbox_head
    logits = torch.from_numpy(arrays[f'{case}_all_cls_scores']).requires_grad_()
    codes = torch.from_numpy(arrays[f'{case}_all_bbox_preds']).requires_grad_()
    losses = head.loss(list(logits), list(codes), truths(arrays, case))
    assert sorted(losses) == ['d0.loss_bbox', 'd0.loss_cls', 'loss_bbox', 'loss_cls']
    for key, value in losses.items():
        np.testing.assert_allclose(value.item(), arrays[f'{case}_{key}'].item(), rtol=1e-5)
    if f'{case}_grad_cls' in arrays:
        sum(losses.values()).backward()
        for parameter, key in ((logits, 'grad_cls'), (codes, 'grad_box')):
            want = arrays[f'{case}_{key}']
            close(parameter.grad, want, atol=1e-5 * np.abs(want).max(), rtol=1e-3)


@pytest.mark.parametrize('case', ['bs1', 'bs2', 'nanvel', 'near', 'manygt'])
def test_assignments_equal_the_official_code(case: str) -> None:
    arrays = oracle('tiny_like_loss')
    for layer in range(2):
        for sample, truth in enumerate(truths(arrays, case)):
            targets = encode_boxes(truth.bboxes_3d.tensor)
            close(targets, arrays[f'{case}_gt{sample}_boxes_normalized'], atol=1e-5)
            queries, found = match(
                torch.from_numpy(arrays[f'{case}_all_cls_scores'][layer, sample]),
                torch.from_numpy(arrays[f'{case}_all_bbox_preds'][layer, sample]),
                truth.labels_3d,
                targets,
                2.0,
                0.25,
            )
            assigned = np.zeros(20, dtype=np.int64)
            assigned[queries.numpy()] = found.numpy() + 1
            np.testing.assert_array_equal(
                assigned, arrays[f'{case}_assigned_gt_inds_d{layer}_s{sample}']
            )


def test_a_sample_without_objects_has_a_classification_loss_alone() -> None:
    arrays, head = oracle('tiny_like_loss'), build().pts_bbox_head
    logits = torch.from_numpy(arrays['bs2_all_cls_scores']).requires_grad_()
    codes = torch.from_numpy(arrays['bs2_all_bbox_preds']).requires_grad_()
    empty = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(torch.zeros(0, 7)),
        labels_3d=torch.zeros(0, dtype=torch.long),
    )
    losses = head.loss(list(logits), list(codes), [empty, empty])
    p = logits[-1].detach().sigmoid()
    expected = 2 * (-0.75 * p**2 * (1 - p).log()).sum()
    np.testing.assert_allclose(losses['loss_cls'].item(), expected.item(), rtol=1e-5)
    assert losses['loss_bbox'].item() == 0
    sum(losses.values()).backward()
    assert codes.grad.abs().max() == 0
    full = truths(arrays, 'bs2')[0]
    mixed = head.loss(list(logits), list(codes), [full, empty])
    alone = head.loss(list(logits[:, :1]), list(codes[:, :1]), [full])
    np.testing.assert_allclose(mixed['loss_bbox'].item(), alone['loss_bbox'].item(), rtol=1e-6)


def test_not_a_number_in_predictions_does_not_stop_training() -> None:
    arrays, head = oracle('tiny_like_loss'), build().pts_bbox_head
    logits = torch.from_numpy(arrays['bs1_all_cls_scores'].copy())
    logits[0, 0, 3] = float('nan')
    losses = head.loss(
        list(logits), list(torch.from_numpy(arrays['bs1_all_bbox_preds'])), truths(arrays, 'bs1')
    )
    assert all(value.isfinite() for value in losses.values())


def test_wrong_number_of_code_weights_is_named() -> None:
    arrays, head = oracle('tiny_like_loss'), build().pts_bbox_head
    truth = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(torch.ones(1, 7)), labels_3d=torch.zeros(1, dtype=torch.long)
    )
    logits, codes = (
        torch.from_numpy(arrays[f'bs1_all_{key}']) for key in ('cls_scores', 'bbox_preds')
    )
    with pytest.raises(UserError, match='8 for others'):
        head.loss(list(logits), list(codes), [truth])


@pytest.mark.parametrize('case', ['default', 'bs2', 'narrow', 'thr'])
@pytest.mark.parametrize('name', SIZES)
def test_detections_equal_the_official_code(name: str, case: str) -> None:
    arrays, loss = oracle(f'{name}_decode'), oracle(f'{name}_loss')
    logits, codes = arrays['in_all_cls_scores'][-1], arrays['in_all_bbox_preds'][-1]
    if case == 'bs2':
        logits, codes = loss['bs2_all_cls_scores'][-1], loss['bs2_all_bbox_preds'][-1]
    threshold = float(arrays['thr_score_threshold']) if case == 'thr' else None
    area = arrays['narrow_post_center_range' if case == 'narrow' else 'post_center_range'].tolist()
    for i in range(len(logits)):
        boxes, scores, labels = select_boxes(
            torch.from_numpy(logits[i]), torch.from_numpy(codes[i]), area, 50, threshold
        )
        want = arrays[f'{case}_s{i}_boxes_bottom']
        close(scores, arrays[f'{case}_s{i}_scores'], atol=1e-6)
        np.testing.assert_array_equal(labels.numpy(), arrays[f'{case}_s{i}_labels'])
        close(boxes[:, [0, 1, 2, 4, 3, 5, 7, 8]], want[:, [0, 1, 2, 3, 4, 5, 7, 8]], atol=1e-4)
        close(
            torch.remainder(-boxes[:, 6] - np.pi / 2 - torch.from_numpy(want[:, 6]) + 1, 2 * np.pi),
            np.ones(len(want), dtype=np.float32),
            atol=1e-5,
        )


def test_a_threshold_that_nothing_passes_is_lowered_until_something_does() -> None:
    logits, codes = torch.logit(torch.tensor([[0.2], [0.1], [0.05]])), torch.zeros(3, 8)
    count = {
        threshold: len(select_boxes(logits, codes, POST_RANGE, 3, threshold)[0])
        for threshold in (0.15, 0.21, 0.001, 0.5)
    }
    assert count == {0.15: 1, 0.21: 1, 0.001: 3, 0.5: 1}
    assert len(select_boxes(logits - 20, codes, POST_RANGE, 3, 0.5)[0]) == 3


def test_boxes_survive_coding() -> None:
    rng = np.random.default_rng(0)
    boxes = torch.from_numpy(
        rng.uniform(
            [-50, -50, -5, 0.1, 0.1, 0.1, -1.5 * np.pi, -9, -9],
            [50, 50, 3, 9, 9, 9, 0.5 * np.pi, 9, 9],
            (50, 9),
        )
    )
    for size in (7, 9):
        torch.testing.assert_close(decode_boxes(encode_boxes(boxes[:, :size])), boxes[:, :size])


def e2e_sample(arrays: dict[str, np.ndarray], frame: int, **meta: Any) -> Det3DDataSample:
    sample = Det3DDataSample(
        metainfo=dict(
            lidar2img=arrays['lidar2img'],
            can_bus=arrays['can_bus_abs'][frame],
            box_type_3d=LiDARInstance3DBoxes,
            **meta,
        )
    )
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=old_boxes(arrays['gt_boxes_gravity']),
        labels_3d=torch.from_numpy(arrays['gt_labels']),
    )
    return sample


def e2e_images(arrays: dict[str, np.ndarray], frames: list[int]) -> Tensor:
    return (torch.from_numpy(arrays['images_u8'][frames]).float() - 127) / 64


def e2e_queue(arrays: dict[str, np.ndarray], case: str) -> Det3DDataSample:
    queue = [
        dict(lidar2img=arrays['lidar2img'], can_bus=can_bus, prev_bev_exists=bool(known))
        for can_bus, known in zip(
            arrays[f'train_{case}_can_bus'], arrays[f'train_{case}_prev_bev_exists'], strict=True
        )
    ]
    return e2e_sample(arrays, 2, queue=queue)


@pytest.mark.parametrize('case', ['same', 'mid', 'last'])
@pytest.mark.parametrize('name', SIZES)
def test_training_on_a_queue_equals_the_official_code(name: str, case: str) -> None:
    arrays, model = oracle(f'{name}_e2e'), build(name)
    model.train()
    losses = model.loss(
        {'imgs': e2e_images(arrays, [0, 1, 2]).flatten(0, 1)[None]}, [e2e_queue(arrays, case)]
    )
    assert model.training and model.pts_bbox_head.training
    for key, value in losses.items():
        np.testing.assert_allclose(value.item(), arrays[f'train_{case}_{key}'].item(), rtol=1e-4)
    sum(losses.values()).backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert sorted(gradients) == sorted(arrays[f'train_{case}_grad_names'].tolist())
    for key, norm in zip(
        arrays[f'train_{case}_grad_names'], arrays[f'train_{case}_grad_norms'], strict=True
    ):
        np.testing.assert_allclose(gradients[key].norm().item(), norm, rtol=2e-3, atol=1e-6)
    for key in (key for key in arrays if key.startswith(f'train_{case}_grad/')):
        close(
            gradients[key.partition('/')[2]],
            arrays[key],
            rtol=1e-3,
            atol=1e-5 * np.abs(arrays[key]).max() + 1e-8,
        )


def test_a_batch_of_queues_has_the_mean_loss_of_its_samples() -> None:
    """Equal numbers of objects per sample: the batch's normaliser is twice that of one sample."""
    arrays, model = oracle('tiny_like_e2e'), build()
    images = e2e_images(arrays, [0, 1, 2]).flatten(0, 1)[None]
    with torch.no_grad():
        alone = [
            model.loss({'imgs': images}, [e2e_queue(arrays, case)]) for case in ('same', 'last')
        ]
        both = model.loss(
            {'imgs': images.expand(2, -1, -1, -1, -1)},
            [e2e_queue(arrays, case) for case in ('same', 'last')],
        )
    for key, value in both.items():
        np.testing.assert_allclose(
            value.item(), (alone[0][key] + alone[1][key]).item() / 2, rtol=1e-4
        )


def check_frame(arrays: dict[str, np.ndarray], frame: int, sample: Det3DDataSample) -> None:
    found, want = sample.pred_instances_3d, arrays[f'test{frame}_boxes_bottom']
    close(found.scores_3d, arrays[f'test{frame}_scores'], atol=5e-5)
    np.testing.assert_array_equal(found.labels_3d.numpy(), arrays[f'test{frame}_labels'])
    close(
        found.bboxes_3d.tensor[:, [0, 1, 2, 4, 3, 5, 7, 8]],
        want[:, [0, 1, 2, 3, 4, 5, 7, 8]],
        atol=5e-4,
    )
    assert isinstance(found.bboxes_3d, LiDARInstance3DBoxes)


@pytest.mark.parametrize(
    ('name', 'batch'), [('tiny_like', 1), ('tiny_like', 2), ('tiny_like', 4), ('two_level', 1)]
)
def test_a_drive_equals_the_official_code_in_any_batch_size(name: str, batch: int) -> None:
    arrays, model = oracle(f'{name}_e2e'), build(name)
    samples = [e2e_sample(arrays, i, scene_token=str(arrays[f'test{i}_scene'])) for i in range(4)]
    for start in range(0, 4, batch):
        frames = list(range(start, start + batch))
        with torch.no_grad():
            found = model.predict(
                {'imgs': e2e_images(arrays, frames)}, [samples[i] for i in frames]
            )
        for i, sample in zip(frames, found, strict=True):
            check_frame(arrays, i, sample)
    assert model.history is not None
    close(model.history.bev.transpose(0, 1), arrays['test3_bev_embed'])
    np.testing.assert_array_equal(samples[3].metainfo['can_bus'], arrays['can_bus_abs'][3])


def test_every_evaluation_starts_without_history() -> None:
    arrays, model = oracle('tiny_like_e2e'), build()
    for _ in range(2):
        model.train()
        model.eval()
        with torch.no_grad():
            found = model.predict(
                {'imgs': e2e_images(arrays, [0])}, [e2e_sample(arrays, 0, scene_token='a')]
            )
        check_frame(arrays, 0, found[0])


def test_the_static_variant_needs_no_can_bus_and_sees_no_history() -> None:
    arrays, model = oracle('tiny_like_e2e'), build(use_can_bus=False)
    model.temporal = False
    results = []
    for frame in (0, 1):
        sample = Det3DDataSample(
            metainfo=dict(lidar2img=arrays['lidar2img'], box_type_3d=LiDARInstance3DBoxes)
        )
        with torch.no_grad():
            results.append(
                model.predict({'imgs': e2e_images(arrays, [frame])}, [sample])[0].pred_instances_3d
            )
        if frame == 1:
            with torch.no_grad():
                again = build(use_can_bus=False)._forward(
                    {'imgs': e2e_images(arrays, [1])}, [sample]
                )
            scores = again[1][-1].sigmoid().flatten().topk(50).values
            close(results[1].scores_3d, scores.numpy()[: len(results[1])], atol=1e-6)
    assert model.history is None


def test_bfloat16_autocast_stays_close_to_float32() -> None:
    arrays, model = oracle('tiny_like_e2e'), build()
    images, sample = e2e_images(arrays, [0, 1, 2]).flatten(0, 1)[None], e2e_queue(arrays, 'same')
    exact = model.loss({'imgs': images}, [sample])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model.loss({'imgs': images}, [sample])
    sum(rough.values()).backward()
    for key, value in rough.items():
        assert value.dtype == torch.float32
        # Rounded predictions may be matched to other objects.
        np.testing.assert_allclose(value.item(), exact[key].item(), rtol=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        bev = model._forward({'imgs': images[:, :6]}, [sample])[0]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rough_bev = model._forward({'imgs': images[:, :6]}, [sample])[0]
    assert (bev - rough_bev).abs().mean() < 0.04 * bev.abs().mean()


def test_geometry_stays_float32_under_autocast() -> None:
    first = oracle('tiny_like_forward_f1')
    points = pillar_points(10, 10, 4, PC_RANGE)
    matrix, size = torch.from_numpy(first['lidar2img'])[None], tuple(first['img_shape'][0][:2])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough, visible = project(points, matrix, size)
    exact, also_visible = project(points, matrix, size)
    assert torch.equal(rough, exact) and torch.equal(visible, also_visible)


def test_frames_that_do_not_fit_are_named() -> None:
    arrays, model = oracle('tiny_like_e2e'), build()
    images = e2e_images(arrays, [0])

    def error(images: Tensor, **meta: Any) -> str:
        sample = e2e_sample(arrays, 0, token='frame7')
        sample.set_metainfo({key: value for key, value in meta.items() if value is not None})
        for key in (key for key, value in meta.items() if value is None):
            sample.pop(key)
        with pytest.raises(UserError) as caught:
            model.predict({'imgs': images}, [sample])
        return str(caught.value)

    assert 'frame7' in error(images, can_bus=None) and 'create_data.py' in error(
        images, can_bus=None
    )
    assert '(17,)' in error(images, can_bus=np.zeros(17))
    assert '(6, 3, 4)' in error(images, lidar2img=np.zeros((6, 3, 4)))
    assert 'meta_keys' in error(images, lidar2img=None)
    assert '(6, 4, 4)' in error(images, lidar2img=arrays['lidar2img'][:5])
    assert '6 cameras' in error(images[:, :5], lidar2img=arrays['lidar2img'][:5])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_gives_what_the_official_code_gave_on_the_cpu() -> None:
    arrays, model = oracle('tiny_like_e2e'), build().cuda()
    for frame in range(4):
        sample = e2e_sample(arrays, frame, scene_token=str(arrays[f'test{frame}_scene']))
        with torch.no_grad():
            model.predict({'imgs': e2e_images(arrays, [frame]).cuda()}, [sample])
        assert model.history is not None
        close(
            model.history.bev.transpose(0, 1).cpu(),
            arrays[f'test{frame}_bev_embed'],
            atol=1e-3,
            rtol=1e-3,
        )
    model.train()
    images = e2e_images(arrays, [0, 1, 2]).flatten(0, 1)[None].cuda()
    with torch.autocast('cuda', dtype=torch.bfloat16):
        losses = model.loss(
            {'imgs': images.expand(2, -1, -1, -1, -1)},
            [e2e_queue(arrays, case) for case in ('same', 'last')],
        )
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
