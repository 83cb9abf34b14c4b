"""Image files to network inputs: equal to the usual path, or next to equal where it is faster."""

import io

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image

from adadedup_mm.features import BadImage, Transform, decode, plain_decode

CLIP = Transform(224, 224)


def photo(height, width, seed=0):
    """Structure at all scales, as photos have."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (3, 8, 20, 60):
        noise = rng.random((cells, cells, 3)).astype(np.float32)
        channels = [
            Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        image += np.stack([np.asarray(channel) for channel in channels], axis=2) / cells**0.5
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * 255).round().astype(np.uint8)


def save(path, pixels, mode='RGB', **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    'height, width', [(480, 640), (901, 1203), (640, 427), (224, 224), (37, 50), (1, 1)]
)
def test_plain_path_is_open_clips_default(height, width, tmp_path):
    path = save(tmp_path / 'image.png', photo(height, width))
    usual = image_transform(224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    with Image.open(path) as image:
        assert torch.equal(plain_decode(path, CLIP), usual(image).mul(255).round().to(torch.uint8))


@pytest.mark.parametrize('crop_mode, squash', [('center', False), ('squash', True)])
def test_plain_path_is_timms_default(crop_mode, squash, tmp_path):
    path = save(tmp_path / 'image.png', photo(300, 431))
    usual = timm.data.create_transform(
        (3, 96, 96),
        crop_pct=0.875,
        crop_mode=crop_mode,
        interpolation='bilinear',
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    ours = plain_decode(path, Transform(96, 109, squash, 'bilinear'))
    with Image.open(path) as image:
        assert torch.equal(ours, usual(image).mul(255).round().to(torch.uint8))


@pytest.mark.parametrize(
    'name, mode, options',
    [
        ('rgb.png', 'RGB', {}),
        ('alpha.png', 'RGBA', {}),
        ('gray.png', 'L', {}),
        ('palette.png', 'P', {}),
        ('bits.png', '1', {}),
        ('cmyk.jpg', 'CMYK', {}),
        ('image.webp', 'RGB', dict(lossless=True)),
        ('image.bmp', 'RGB', {}),
        ('image.tiff', 'RGB', {}),
        ('stored-as-rgb.jpg', 'RGB', dict(keep_rgb=True)),
    ],
)
def test_everything_but_ordinary_jpeg_takes_the_plain_path(name, mode, options, tmp_path):
    path = save(tmp_path / name, photo(300, 400), mode, **options)
    assert torch.equal(decode(path, CLIP), plain_decode(path, CLIP))


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 1100),
    width=st.integers(1, 1100),
    squash=st.booleans(),
    gray=st.booleans(),
    subsampling=st.sampled_from([0, 2]),
    median=st.sampled_from([0, 3, 5]),
)
def test_jpeg_of_any_size_is_next_to_the_plain_path(
    height, width, squash, gray, subsampling, median, tmp_path_factory
):
    pixels = photo(height, width)
    options = {} if gray else dict(subsampling=subsampling)
    path = save(
        tmp_path_factory.mktemp('jpeg') / 'image.jpg',
        pixels,
        'L' if gray else 'RGB',
        quality=90,
        **options,
    )
    transform = Transform(64, 73, squash, median=median)
    fast, plain = decode(path, transform), plain_decode(path, transform)
    assert fast.shape == (3, 64, 64) and fast.dtype == torch.uint8
    difference = (fast.float() - plain.float()).abs()
    assert difference.mean() < 1 and difference.max() < 40


def test_decoding_at_a_fraction_of_the_size_does_not_move_the_image(tmp_path):
    # At 1/2 the decoder gives 452 rows, which stand for 904 and not for 903.
    rows = 127 + 120 * np.sin(np.arange(903) / 12)
    pixels = np.broadcast_to(rows[:, None, None], (903, 1607, 3)).astype(np.uint8)
    path = save(tmp_path / 'image.jpg', pixels, quality=95)
    difference = decode(path, CLIP).float() - plain_decode(path, CLIP).float()
    assert difference.abs().mean() < 0.3


@pytest.mark.parametrize(
    'name, mode, options',
    [
        ('small.jpg', 'RGB', dict(quality=95)),
        ('gray.png', 'L', {}),
        ('palette.png', 'P', {}),
        ('rgb.png', 'RGB', {}),
    ],
)
def test_the_median_filter_takes_single_wrong_pixels_away(name, mode, options, tmp_path):
    clean, rng = photo(1200, 1600), np.random.default_rng(1)
    noisy = np.where(
        rng.random((1200, 1600, 1)) < 0.03, rng.choice([0, 255], (1200, 1600, 1)), clean
    ).astype(np.uint8)
    paths = [
        save(tmp_path / f'{kind}-{name}', pixels, mode, **options)
        for kind, pixels in (('clean', clean), ('noisy', noisy))
    ]
    plain, filtered = (
        decode(paths[0], transform).float().sub(decode(paths[1], transform).float()).abs().mean()
        for transform in (CLIP, Transform(224, 224, median=5))
    )
    assert filtered < plain / 2


def test_exif_orientation_is_ignored(tmp_path):
    pixels = photo(300, 500)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, turned = (
        save(tmp_path / f'{name}.jpg', pixels, quality=90, **options)
        for name, options in (('upright', {}), ('turned', dict(exif=exif)))
    )
    assert torch.equal(decode(upright, CLIP), decode(turned, CLIP))


def test_16_bit_gray_is_scaled_rather_than_clipped(tmp_path):
    gray = photo(300, 400)[..., 0]
    deep, plain = tmp_path / 'deep.png', tmp_path / 'plain.png'
    Image.fromarray(gray.astype(np.uint16) << 8).save(deep)
    Image.fromarray(gray).save(plain)
    assert torch.equal(decode(deep, CLIP), decode(plain, CLIP))


@pytest.mark.parametrize('name', ['strip.png', 'strip.jpg'])
def test_long_strips_need_no_more_memory_than_the_crop(name, tmp_path):
    # The usual path would make this 224 x 2,240,000.
    path = save(tmp_path / name, np.full((2, 20_000, 3), 77, np.uint8))
    assert (decode(path, CLIP).float() - 77).abs().max() <= 1


def test_paths_may_hold_any_character(tmp_path):
    path = save(tmp_path / 'ein Bild, ähnlich (1) 图.jpg', photo(60, 80))
    assert decode(str(path), CLIP).shape == (3, 224, 224)


@pytest.mark.parametrize('name', ['image.jpg', 'image.png', 'image.webp', 'image.tiff'])
def test_truncated_files_are_bad_images(name, tmp_path):
    data = save(tmp_path / name, photo(200, 300)).read_bytes()
    for share in (0.02, 0.3, 0.8):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(BadImage):
            decode(tmp_path / name, CLIP)


@pytest.mark.parametrize(
    'content, message',
    [(b'', 'empty'), (b'no image', 'not an image'), (b'\xff\xd8\xff\xe0 no jpeg', 'Truncated')],
)
def test_files_of_something_else_are_bad_images(content, message, tmp_path):
    path = tmp_path / 'image.jpg'
    path.write_bytes(content)
    with pytest.raises(BadImage, match=message):
        decode(path, CLIP)


@pytest.mark.parametrize(
    'name, message',
    [
        ('missing.jpg', 'No such file'),
        ('.', 'directory'),
        ('a\0b.jpg', 'null'),
        ('\ud800.jpg', 'encode'),
    ],
)
def test_paths_without_a_file_are_bad_images(name, message, tmp_path):
    with pytest.raises(BadImage, match=message):
        decode(f'{tmp_path}/{name}', CLIP)


@pytest.mark.filterwarnings('ignore::UserWarning')  # PIL's, about what is damaged
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_an_image_or_a_bad_image(data, tmp_path_factory):
    kind = data.draw(st.sampled_from(['JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP']))
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 50)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp('damaged') / 'image'
    path.write_bytes(bytes(content))
    try:
        assert decode(path, Transform(32, 32)).shape == (3, 32, 32)
    except BadImage as error:
        assert '\n' not in str(error)
