"""BEVFormer's configs: the official models' parameters, the twins with pruning, Waymo."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

import adadedup_mm.models.bevformer  # noqa: F401

CONFIGS = Path(__file__).parents[1] / 'configs' / 'bevformer'
DATA = Path(__file__).parent / 'data' / 'bevformer'
TWINS = sorted(path.stem for path in CONFIGS.glob('*_adadedup.py'))


def build(config: dict[str, Any], device: str = 'meta') -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet3d'), torch.device(device):
        return MODELS.build(config)


@pytest.mark.parametrize('name', ['tiny', 'small', 'base'])
def test_parameters_are_those_of_the_official_model(name: str) -> None:
    with gzip.open(DATA / 'state_dict_keys.json.gz') as file:
        official = json.load(file)
    model = build(Config.fromfile(CONFIGS / f'bevformer_{name}.py').model)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == official[
        'shapes'
    ][name]
    frozen = [key for key, value in model.named_parameters() if not value.requires_grad]
    assert sorted(frozen) == sorted(official['frozen'][name])


def test_the_static_variant_has_the_same_parameters_as_the_temporal_one() -> None:
    base, static = (
        build(Config.fromfile(CONFIGS / f'bevformer_{name}.py').model) for name in ('base', 's')
    )
    assert {key: value.shape for key, value in base.state_dict().items()} == {
        key: value.shape for key, value in static.state_dict().items()
    }


def test_every_config_has_a_twin() -> None:
    plain = {path.stem for path in CONFIGS.glob('*.py')} - set(TWINS)
    assert {f'{name}_adadedup' for name in plain} == set(TWINS)


@pytest.mark.parametrize('name', TWINS)
def test_the_twin_adds_nothing_but_pruning(name: str) -> None:
    twin, plain = (
        Config.fromfile(CONFIGS / f'{stem}.py').to_dict()
        for stem in (name, name.removesuffix('_adadedup'))
    )
    assert twin['adadedup']['keep_ratio'] == 0.8
    assert set(twin) - set(plain) == {'adadedup', 'runner_type'}
    assert {key: twin[key] for key in plain} == plain


def test_a_new_model_starts_as_the_official_one_does() -> None:
    torch.manual_seed(0)
    head = build(
        dict(
            type='BEVFormerHead',
            num_classes=10,
            bev_h=10,
            bev_w=10,
            num_query=20,
            pc_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
            post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            transformer=dict(
                type='BEVFormerTransformer',
                embed_dims=32,
                num_levels=1,
                encoder_layers=2,
                decoder_layers=2,
                ffn_channels=64,
            ),
        ),
        'cpu',
    )
    head.init_weights()
    values = {key: value.detach() for key, value in head.named_parameters()}
    with np.load(DATA / 'tiny_like_init_offsets.npz') as offsets:
        for key in offsets:
            np.testing.assert_allclose(values[key], offsets[key], atol=1e-6)
    for key, value in values.items():
        if key.endswith(
            (
                'sampling_offsets.weight',
                'attention_weights.weight',
                'attention_weights.bias',
                'value_proj.bias',
                'output_proj.bias',
                'reference_points.bias',
            )
        ):
            assert not value.any(), key
    for branch in head.cls_branches:
        np.testing.assert_allclose(branch[-1].bias.detach(), -4.59512, atol=1e-5)
    for key in (
        'transformer.level_embeds',
        'transformer.cams_embeds',
        'bev_embedding.weight',
        'query_embedding.weight',
        'positional_encoding.row_embed.weight',
    ):
        assert 0.8 < values[key].std() < 1.2, key
    # Xavier's bound is sqrt(6 / (inputs + outputs)).
    for key, bound in {
        'transformer.encoder.layers.0.ffns.0.layers.0.0.weight': 0.25,
        'transformer.can_bus_mlp.0.weight': 0.42,
        'transformer.decoder.layers.0.attentions.0.attn.in_proj_weight': 0.2166,
    }.items():
        assert 0.9 * bound < values[key].abs().max() < bound + 0.001, key
    assert torch.equal(values['reg_branches.0.0.weight'], values['reg_branches.1.0.weight'])


def waymo_infos(folder: Path) -> dict[str, Any]:
    """Two frames as mmdet3d describes Waymo's; the pictures of the side cameras are less high."""
    rng = np.random.default_rng(0)
    frames = []
    for index in range(2):
        images = {}
        for number, name in enumerate(
            ['FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'SIDE_LEFT', 'SIDE_RIGHT']
        ):
            shape = (64, 96, 3) if number < 3 else (44, 96, 3)
            path = folder / 'training' / f'image_{number}' / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, shape).astype(np.uint8))
            lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 2], [1, 0, 0, 0], [0, 0, 0, 1.0]])
            cam2img = np.array([[50, 0, 48, 0], [0, 50, 32, 0], [0, 0, 1.0, 0]])
            images[f'CAM_{name}'] = dict(
                img_path=path.name,
                height=shape[0],
                width=shape[1],
                lidar2cam=lidar2cam.tolist(),
                cam2img=cam2img.tolist(),
                lidar2img=(cam2img @ lidar2cam).tolist(),
            )
        instances = [
            dict(
                bbox=[0.0, 0.0, 9.0, 9.0],
                bbox_label=0,
                bbox_label_3d=0,
                bbox_3d=[20.0, 3.0, 0.0, 4.0, 2.0, 1.6, 0.3],
                num_lidar_pts=9,
                group_id=0,
                camera_id=0,
            )
        ]
        frames.append(
            dict(
                sample_idx=index,
                timestamp=index,
                context_name='c',
                ego2global=np.eye(4).tolist(),
                images=images,
                lidar_points=dict(num_pts_feats=6, lidar_path=''),
                instances=instances,
                cam_sync_instances=instances,
                cam_instances={},
            )
        )
    return dict(metainfo=dict(dataset='waymo', version='waymo_v1.4'), data_list=frames)


def test_the_waymo_config_trains_and_detects_with_five_cameras(tmp_path: Path) -> None:
    (tmp_path / 'waymo_infos_train.pkl').write_bytes(pickle.dumps(waymo_infos(tmp_path)))
    config = Config.fromfile(CONFIGS / 'bevformer_s_waymo.py')
    config.merge_from_dict(
        dict(
            model=dict(
                img_backbone=dict(
                    _delete_=True,
                    type='mmdet.ResNet',
                    depth=18,
                    base_channels=8,
                    out_indices=(1, 2, 3),
                ),
                img_neck=dict(in_channels=[16, 32, 64], out_channels=32),
                pts_bbox_head=dict(
                    bev_h=15,
                    bev_w=11,
                    num_query=20,
                    max_num=10,
                    transformer=dict(
                        embed_dims=32, ffn_channels=32, encoder_layers=1, decoder_layers=1
                    ),
                ),
            )
        )
    )
    dataset = dict(config.train_dataloader.dataset, data_root=f'{tmp_path}/', load_interval=1)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        built = DATASETS.build(dataset)
        samples = [built[0], built[1]]
    model = build(config.model, 'cpu')
    model.init_weights()
    batch = model.data_preprocessor(
        dict(
            inputs={'img': [sample['inputs']['img'] for sample in samples]},
            data_samples=[sample['data_samples'] for sample in samples],
        ),
        True,
    )
    assert batch['inputs']['imgs'].shape == (2, 5, 3, 64, 64)
    losses = model.loss(batch['inputs'], batch['data_samples'])
    assert all(value.isfinite() for value in losses.values()) and losses['loss_bbox'] > 0
    found = model.eval().predict(batch['inputs'], batch['data_samples'])[0].pred_instances_3d
    assert (
        isinstance(found.bboxes_3d, LiDARInstance3DBoxes) and found.bboxes_3d.tensor.shape[1] == 7
    )
