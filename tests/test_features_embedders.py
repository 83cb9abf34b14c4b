"""Embedders: the network's own features, faster; clear errors for weights that do not fit."""

import copy
import json
import os
import pickle
import zipfile

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from adadedup_mm.base.cpu import accelerate
from adadedup_mm.base.errors import UserError
from adadedup_mm.features import (
    OfflineEmbedder,
    OpenCLIPEmbedder,
    PixelEmbedder,
    RandomEmbedder,
    TimmEmbedder,
    decode,
    plain_decode,
)

TINY = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=64, layers=2, width=48, head_width=12, patch_size=16),
    text_cfg=dict(context_length=8, vocab_size=32, width=16, heads=2, layers=1),
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """JPEGs with shapes on texture, of the sizes of COCO and nuScenes and upright."""
    folder, paths = tmp_path_factory.mktemp('photos'), []
    rng = np.random.default_rng(0)
    sizes = [(480, 640), (900, 1600), (640, 427), (431, 640), (1203, 901), (300, 300)]
    for number, (height, width) in enumerate(sizes * 2):
        coarse = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
        image = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        ).astype(np.int16)
        for _ in range(12):
            top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
            image[
                top : top + rng.integers(10, height // 2),
                left : left + rng.integers(10, width // 2),
            ] += rng.integers(-90, 90, 3, dtype=np.int16)
        image += rng.integers(-6, 6, image.shape, dtype=np.int16)
        paths.append(folder / f'{number}.jpg')
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


@pytest.fixture(scope='module')
def offline():
    return OfflineEmbedder()


@pytest.fixture(scope='module')
def tiny_clip(tmp_path_factory):
    """A small CLIP with random weights: its folder, and the model."""
    folder = tmp_path_factory.mktemp('clip')
    (folder / 'tiny.json').write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / 'tiny.json')
    torch.manual_seed(0)
    model = open_clip.create_model('tiny').eval()
    with torch.no_grad():  # larger than at the start of a training, so that activations matter
        for block in model.visual.transformer.resblocks:
            block.mlp.c_fc.weight.mul_(4)
            block.mlp.c_proj.weight.mul_(8)
    torch.save(model.state_dict(), folder / 'weights.pt')
    return folder, model


def inputs(embedder, paths, read=decode):
    return torch.stack([read(path, embedder.transform) for path in paths])


def cosines(a, b):
    return (a * b).sum(1)


def test_fast_decoding_keeps_the_features(offline, photos):
    fast, plain = (offline.encode(inputs(offline, photos, read)) for read in (decode, plain_decode))
    assert cosines(fast, plain).mean() >= 0.9999
    assert cosines(fast, plain).min() >= 0.997


def test_offline_features_are_those_of_the_plain_network(offline, photos):
    network, transform = offline._load()
    images = inputs(offline, photos, plain_decode)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    with torch.inference_mode():
        expected = nn.functional.normalize(network.eval()((images / 255 - mean) / std)).numpy()
    features = offline.encode(images)
    assert features.shape == (len(photos), offline.dim) == (len(photos), 1280)
    assert features.dtype == np.float32
    assert cosines(features, expected).min() > 1 - 1e-5
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_offline_features_in_bf16_stay_close(offline, photos):
    images = inputs(offline, photos)
    assert (
        cosines(OfflineEmbedder(precision='bf16').encode(images), offline.encode(images)).min()
        >= 0.995
    )


def test_a_median_filter_sees_through_the_noise_of_copies(offline, tmp_path, photos):
    rng = np.random.default_rng(0)
    with Image.open(photos[0]) as image:
        pixels = np.array(image.convert('RGB'))
    pixels[rng.random(pixels.shape[:2]) < 0.03] = 255
    Image.fromarray(pixels).save(tmp_path / 'noisy.png')
    alike = {}
    for embedder in (offline, OfflineEmbedder(median=5)):
        features = embedder.encode(inputs(embedder, [photos[0], tmp_path / 'noisy.png']))
        alike[embedder.median] = float(features[0] @ features[1])
    assert alike[0] < 0.9 < 0.95 < alike[5]


@pytest.mark.parametrize('count', [1, 5, 16])
def test_features_do_not_depend_on_their_batch(count, offline, photos):
    images = inputs(offline, photos)
    whole = offline.encode(images)
    parts = np.concatenate([offline.encode(part) for part in images.split(count)])
    assert np.abs(whole - parts).max() < 1e-5


def test_offline_weights_know_what_is_similar(offline, tmp_path, photos):
    with Image.open(photos[0]) as image:
        image.crop((4, 4, 636, 476)).save(tmp_path / 'almost.jpg', quality=70)
    features = offline.encode(inputs(offline, [photos[0], tmp_path / 'almost.jpg', *photos[1:]]))
    assert np.argmax(features[0] @ features[1:].T) == 0


def test_networks_whose_norms_are_used_in_another_order_are_not_accelerated():
    class Reordered(nn.Sequential):
        def forward(self, x):
            return self[0](self[1](x)).mean((2, 3))

    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(0.3)
    assert not accelerate(Reordered(nn.Conv2d(3, 3, 3), norm).eval(), 16)
    assert accelerate(
        nn.Sequential(nn.Conv2d(3, 3, 3), copy.deepcopy(norm), nn.ReLU(), nn.Flatten()).eval(), 16
    )


@pytest.mark.parametrize('model', ['resnet10t.c3_in1k', 'vit_tiny_patch16_224', 'test_convnext'])
def test_timm_features_are_timms_own(model, tmp_path, photos):
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=3).eval()
    torch.save(dict(state_dict=network.state_dict()), tmp_path / 'weights.pth')
    embedder = TimmEmbedder(model, str(tmp_path / 'weights.pth'))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path)) for path in photos[:4]])
        head = network.forward_head(network.forward_features(images), pre_logits=True)
    features = embedder.encode(inputs(embedder, photos[:4], plain_decode))
    assert cosines(features, nn.functional.normalize(head).numpy()).min() > 1 - 1e-5


@pytest.mark.parametrize('precision, error', [('fp32', 1e-5), ('bf16', 1e-3)])
def test_clip_features_are_open_clips_own(precision, error, tiny_clip, photos):
    folder, model = tiny_clip
    transform = open_clip.image_transform(64, is_train=False)
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path)) for path in photos])
        expected = model.encode_image(images, normalize=True).numpy()
    embedder = OpenCLIPEmbedder('tiny', str(folder / 'weights.pt'), precision=precision)
    features = embedder.encode(inputs(embedder, photos, plain_decode))
    assert features.shape == (len(photos), embedder.dim) == (len(photos), 24)
    assert cosines(features, expected).min() > 1 - error


def test_clip_from_a_folder_equals_clip_from_a_file(tiny_clip, tmp_path, photos):
    folder, model = tiny_clip
    (tmp_path / 'open_clip_config.json').write_text(
        json.dumps(dict(model_cfg=TINY, preprocess_cfg=dict(std=[0.5] * 3)))
    )
    torch.save(model.state_dict(), tmp_path / 'open_clip_model.pt')
    by_file = OpenCLIPEmbedder('tiny', str(folder / 'weights.pt'), precision='fp32')
    by_folder = OpenCLIPEmbedder(f'local-dir:{tmp_path}', precision='fp32')
    assert by_folder.transform.std == (0.5, 0.5, 0.5)
    images = inputs(by_file, photos)
    by_folder.__dict__['_network'] = (by_folder._network[0], by_file.transform)
    assert np.array_equal(by_folder.encode(images), by_file.encode(images))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_openais_checkpoints_get_their_activation(tiny_clip, tmp_path, photos):
    folder, model = tiny_clip
    archive = torch.jit.trace_module(
        model, {'encode_image': torch.zeros(1, 3, 64, 64)}, check_trace=False
    )
    archive.save(str(tmp_path / 'ViT.pt'))
    torch.save(model.state_dict(), tmp_path / 'vit_openai.pt')
    plain = OpenCLIPEmbedder('tiny', str(folder / 'weights.pt'), precision='fp32')
    images = inputs(plain, photos)
    exact = plain.encode(images)
    quick = OpenCLIPEmbedder(
        'tiny', str(folder / 'weights.pt'), quick_gelu=True, precision='fp32'
    ).encode(images)
    assert cosines(exact, quick).min() < 1 - 1e-5
    for name in ('ViT.pt', 'vit_openai.pt'):
        assert np.array_equal(
            OpenCLIPEmbedder('tiny', str(tmp_path / name), precision='fp32').encode(images), quick
        )
    forced = OpenCLIPEmbedder(
        'tiny', str(tmp_path / 'vit_openai.pt'), quick_gelu=False, precision='fp32'
    )
    assert np.array_equal(forced.encode(images), exact)


def test_default_clip_is_openais_with_its_activation():
    assert OpenCLIPEmbedder().quick_gelu
    assert not OpenCLIPEmbedder(pretrained='laion2b_s34b_b79k').quick_gelu


def test_local_weights_of_a_known_architecture_get_its_preprocessing(monkeypatch):
    from adadedup_mm.features.open_clip import _common_preprocessing

    assert _common_preprocessing('ViT-B-16-SigLIP')['mean'] == (0.5, 0.5, 0.5)
    assert _common_preprocessing('ViT-B-16-SigLIP')['resize_mode'] == 'squash'
    assert _common_preprocessing('unknown') == {}


@pytest.mark.parametrize(
    'build, changes',
    [
        (lambda path: OpenCLIPEmbedder('tiny', path), True),
        (lambda path: TimmEmbedder('test_vit', path), True),
        (lambda path: OfflineEmbedder(), False),
    ],
)
def test_key_follows_the_weights_and_not_their_path(build, changes, tiny_clip, tmp_path):
    first, second, other = (tmp_path / name for name in ('first.pt', 'second.pt', 'other.pt'))
    for path in (first, second):
        path.write_bytes(b'the same')
    other.write_bytes(b'not the same')
    assert build(str(first)).key == build(str(second)).key
    assert (build(str(first)).key != build(str(other)).key) == changes
    json.dumps(build(str(first)).key)


def test_key_says_what_changes_features_and_nothing_else():
    base = OfflineEmbedder()
    assert (
        base.key == OfflineEmbedder(batch_size=3, workers=1, device='cpu', near_duplicate=0.5).key
    )
    assert base.key == OfflineEmbedder(median=0).key
    assert (
        len(
            {
                str(embedder.key)
                for embedder in (
                    base,
                    OfflineEmbedder(precision='bf16'),
                    OfflineEmbedder(median=3),
                    OfflineEmbedder(median=5),
                )
            }
        )
        == 4
    )
    assert OpenCLIPEmbedder().key != OpenCLIPEmbedder('ViT-B-16').key
    assert PixelEmbedder(8).key != PixelEmbedder(16).key
    assert RandomEmbedder(seed=1).key != RandomEmbedder().key


def test_pixels_are_compared_without_their_brightness():
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 200, (3, 3, 16, 16), dtype=np.uint8)
    )
    embedder = PixelEmbedder()
    features = embedder.encode(
        torch.cat([images, images + 50, torch.full((1, 3, 16, 16), 9, dtype=torch.uint8)])
    )
    assert features.shape == (7, embedder.dim)
    assert np.allclose(features[:3], features[3:6], atol=1e-6)
    assert np.array_equal(features[6], np.zeros(embedder.dim))


def test_random_features_know_only_equality():
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (50, 3, 16, 16), dtype=np.uint8)
    )
    embedder = RandomEmbedder(dim=256)
    features = embedder.encode(torch.cat([images, images[:1]]))
    assert np.array_equal(features[50], features[0])
    assert np.abs(features[1:50] @ features[0]).max() < 0.4
    assert np.array_equal(features[:50], embedder.encode(images))


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: OfflineEmbedder(precision='fp64'), "precision is 'fp64'"),
        (lambda: OfflineEmbedder(precision='fp16', device='cpu'), 'needs a GPU'),
        (lambda: OfflineEmbedder(batch_size=0), 'batch_size is 0'),
        (lambda: OfflineEmbedder(workers=1.5), 'workers is 1.5'),
        (lambda: OfflineEmbedder(device='gpu'), "device is 'gpu'"),
        (lambda: OfflineEmbedder(median=4), 'median is 4'),
        (lambda: OpenCLIPEmbedder(median='5'), "median is '5'"),
        (lambda: TimmEmbedder('resnet18', median=True), 'median is True'),
        (lambda: PixelEmbedder(size=0), 'size is 0'),
        (lambda: TimmEmbedder('resnet51'), "model is 'resnet51'"),
        (lambda: TimmEmbedder('resnet18', '/missing.pth'), 'no file /missing.pth'),
        (lambda: OpenCLIPEmbedder('ViT-B-33'), "model is 'ViT-B-33'"),
        (
            lambda: OpenCLIPEmbedder('ViT-B-32', 'missing.pt'),
            "'missing.pt', which is neither a file nor",
        ),
        (lambda: OpenCLIPEmbedder('ViT-B-32', None), 'pretrained is None'),
        (lambda: OpenCLIPEmbedder('local-dir:/missing'), 'needs an open_clip_config.json'),
    ],
)
def test_wrong_options_are_refused_at_once(build, message):
    with pytest.raises(UserError, match=message) as error:
        build()
    assert '\n' not in str(error.value)


def test_weights_of_another_architecture_are_refused(tiny_clip, tmp_path):
    folder, _ = tiny_clip
    torch.save(dict(weight=torch.zeros(3)), tmp_path / 'other.pt')
    with pytest.raises(UserError, match='not those of a tiny'):
        OpenCLIPEmbedder('tiny', str(tmp_path / 'other.pt')).dim  # noqa: B018
    with pytest.raises(UserError, match='not those of a test_vit.* do not fit, first'):
        TimmEmbedder('test_vit', str(folder / 'weights.pt')).dim  # noqa: B018


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoints_are_never_run(tmp_path, tiny_clip):
    (tmp_path / 'pickle.pt').write_bytes(pickle.dumps(Evil(tmp_path / 'trace')))
    torch.save(dict(state_dict=Evil(tmp_path / 'trace')), tmp_path / 'torch.pt')
    (tmp_path / 'text.pt').write_bytes(b'no checkpoint')
    with zipfile.ZipFile(tmp_path / 'torchscript.pt', 'w') as archive:
        archive.writestr('model/constants.pkl', pickle.dumps(Evil(tmp_path / 'trace')))
    for name in ('pickle.pt', 'torch.pt', 'text.pt', 'torchscript.pt'):
        path = str(tmp_path / name)
        for embedder in (TimmEmbedder('test_vit', path), OpenCLIPEmbedder('tiny', path)):
            with pytest.raises(UserError, match='cannot be read as a plain state dict'):
                embedder.dim  # noqa: B018
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('build', [OpenCLIPEmbedder, lambda: TimmEmbedder('resnet18')])
def test_weights_that_cannot_be_fetched_name_the_way_out(build, monkeypatch):
    def unreachable(*args, **options):
        raise OSError('no network\nand more lines')

    monkeypatch.setattr(open_clip, 'create_model', unreachable)
    monkeypatch.setattr(timm, 'create_model', unreachable)
    with pytest.raises(
        UserError, match=r'give a local file, or use .* _base_/adadedup_offline\.py'
    ) as error:
        build().dim  # noqa: B018
    assert '\n' not in str(error.value)
