"""Every image that can be made here, in every room: what mmdet's own loader reads is the answer
everywhere.

``FUZZ=50`` tries fifty times as many pictures of odd shapes and damage (``make fuzz``).
"""

import functools
import io
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from PIL import Image, features
from test_fuzz import tries

from adadedup_mm.features import BadImage, Transform, decode
from adadedup_mm.images import Reader, image_size, is_plain_jpeg, read_file, read_pixels
from adadedup_mm.images.steps import LoadAsTraining
from adadedup_mm.report.thumbnails import make_thumbnail

pytestmark = pytest.mark.filterwarnings(
    'ignore::UserWarning', 'ignore::RuntimeWarning', 'ignore::DeprecationWarning'
)

MODES = ['1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'I', 'I;16', 'F']
FORMATS = [
    'JPEG',
    'PNG',
    'GIF',
    'BMP',
    'TIFF',
    'WEBP',
    'PPM',
    'JPEG2000',
    'TGA',
    'ICO',
    'PCX',
    'SGI',
    'DDS',
    'MPO',
]
FORMATS += ['AVIF'] if features.check('avif') else []
DEPTHS = {'uint8': 255, 'uint16': 65535, 'float32': 1}
DEEP = dict(uint16=('.png', '.tiff', '.ppm', '.pgm', '.jp2'), float32=('.tiff', '.hdr', '.pfm'))
ENDINGS = ['.png', '.jpg', '.bmp', '.tiff', '.webp', '.ppm', '.pgm', '.jp2', '.hdr', '.pfm', '.ras']
WRITTEN_WHITE = [
    f'{kind}-{mode}' for kind in ('WEBP', 'AVIF', 'JPEG2000') for mode in ('I', 'I;16', 'F')
]
READERS = [
    Reader(*settings)
    for settings in itertools.product(('color', 'grayscale', 'unchanged'), ('cv2', 'pillow'))
]


def scene(height, width, channels=3):
    """Values in [0, 1] with structure and all of that range."""
    rng = np.random.default_rng([height, width])
    values = cv2.resize(
        rng.random((5, 6, channels)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    values = values.reshape(height, width, channels) - values.min()
    return values / max(values.max(), 1e-9)


def of_mode(mode, height=40, width=60):
    values = scene(height, width)
    if mode == 'F':
        return Image.fromarray(values[..., 0].astype(np.float32))
    if mode == 'I':
        return Image.fromarray((values[..., 0] * 60000).astype(np.int32))
    if mode == 'I;16':
        return Image.fromarray((values[..., 0] * 60000).astype(np.uint16))
    picture = Image.fromarray((values * 255).astype(np.uint8))
    if mode == 'LAB':
        return Image.merge('LAB', picture.split())
    return picture.convert('P').convert('PA') if mode == 'PA' else picture.convert(mode)


@functools.cache
def of_pillow():
    """(name, content) of all formats and modes that Pillow writes."""
    made = []
    for kind, mode in itertools.product(FORMATS, MODES):
        buffer = io.BytesIO()
        try:
            of_mode(mode).save(buffer, kind)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a mode that the format does not have
        made.append((f'{kind}-{mode}', buffer.getvalue()))
    return made


@functools.cache
def of_opencv():
    """(name, content) of all formats, depths and numbers of channels that OpenCV writes."""
    made = []
    for ending, (depth, most), channels in itertools.product(ENDINGS, DEPTHS.items(), (1, 3, 4)):
        if ending not in DEEP.get(depth, ENDINGS):
            continue  # OpenCV itself clips the values for formats of 8 bits
        pixels = (scene(40, 60, channels) * most).astype(depth)
        try:
            written, content = cv2.imencode(ending, pixels)
        except cv2.error:
            continue
        if written:
            made.append((f'{ending}-{depth}-{channels}', content.tobytes()))
    return made


def mmdets(path, reader):
    """The array of mmdet's loader; None where it fails."""
    loader = LoadImageFromFile(color_type=reader.color_type, imdecode_backend=reader.backend)
    try:
        return loader.transform(dict(img_path=str(path)))['img']
    except Exception:
        return None


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except BadImage as error:
        assert str(error) and '\n' not in str(error)
        return None


def as_picture(pixels):
    """An array of mmdet's loader, of 8 bits, as blue, green and red."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., 0]
    return np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels[..., :3]


def check_rooms(path, reader):
    """All rooms read a file, or none does; returns what mmdet reads."""
    expected = mmdets(path, reader)
    pixels = attempt(lambda: read_pixels(read_file(path), reader))
    loaded = attempt(lambda: LoadAsTraining(reader.color_type, reader.backend)(dict(img_path=path)))
    seen = attempt(decode, path, Transform(24, 24, squash=True, reader=reader))
    size, thumbnail = attempt(image_size, path, reader), make_thumbnail(str(path), reader)
    answers = [answer is not None for answer in (pixels, loaded, seen, size, thumbnail)]
    assert answers == [expected is not None] * 5
    if expected is None:
        return None
    assert pixels.dtype == np.uint8 and pixels.shape == (*expected.shape[:2], 3)
    assert np.array_equal(loaded['img'], pixels) and size == expected.shape[:2]
    assert thumbnail[1] == pytest.approx(expected.shape[1] / expected.shape[0], rel=0.2)
    if expected.dtype == np.uint8:
        assert np.array_equal(pixels, as_picture(expected))
    if min(expected.shape[:2]) >= 24:
        shrunk = cv2.resize(pixels, (24, 24), interpolation=cv2.INTER_AREA)[..., ::-1]
        difference = shrunk.astype(float) - seen.permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 12
    return expected


@pytest.mark.parametrize('reader', READERS, ids=str)
@pytest.mark.parametrize('source', [of_pillow, of_opencv])
def test_all_rooms_read_what_mmdet_reads(source, reader, tmp_path):
    read = []
    for name, content in source():
        path = tmp_path / 'picture.jpg'
        path.write_bytes(content)
        if check_rooms(path, reader) is not None:
            read.append(name)
    assert len(read) >= 15


@pytest.mark.parametrize('source', [of_pillow, of_opencv])
def test_no_format_that_can_be_read_as_it_is_becomes_blank(source, tmp_path):
    for name, content in source():
        path = tmp_path / 'picture'
        path.write_bytes(content)
        seen = attempt(decode, path, Transform(24, 24, squash=True, reader=Reader('unchanged')))
        if seen is None:
            continue
        # Pillow itself writes deep values white into formats of 8 bits, and OpenCV reads its own
        # grey Sun raster black.
        is_blank_already = name in WRITTEN_WHITE or np.ptp(mmdets(path, Reader('unchanged'))) == 0
        assert is_blank_already or seen.float().std() > 15, name


@tries(60)
@given(
    height=st.integers(1, 40) | st.integers(1, 3000),
    width=st.integers(1, 40) | st.integers(1, 3000),
    kind=st.sampled_from(['PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF']),
    mode=st.sampled_from(['L', 'RGB']),
    reader=st.sampled_from(READERS),
)
def test_pictures_of_any_shape_are_read_alike(height, width, kind, mode, reader, tmp_path_factory):
    path = tmp_path_factory.mktemp('shape') / 'picture.png'
    Image.new(mode, (width, height), 77 if mode == 'L' else (200, 10, 90)).save(path, kind)
    expected = mmdets(path, reader)
    seen = attempt(decode, path, Transform(24, 24, reader=reader))
    assert (seen is None) == (expected is None) == (make_thumbnail(str(path), reader) is None)
    if expected is not None:
        assert attempt(image_size, path, reader) == (height, width)


@tries(60)
@given(
    orientation=st.integers(1, 8),
    kind=st.sampled_from(['JPEG', 'PNG', 'TIFF', 'WEBP']),
    reader=st.sampled_from(READERS),
)
def test_orientation_turns_thumbnails_and_sizes_as_the_training_does_but_no_features(
    orientation, kind, reader, tmp_path_factory
):
    folder, exif = tmp_path_factory.mktemp('turned'), Image.Exif()
    exif[0x0112] = orientation
    for name, options in (('plain', {}), ('turned', dict(exif=exif))):
        of_mode('RGB').save(folder / name, kind, **options)
    check = Transform(24, 24, squash=True, reader=reader)
    if kind != 'TIFF':  # which decoders turn by themselves
        assert (decode(folder / 'plain', check) == decode(folder / 'turned', check)).all()
    expected = mmdets(folder / 'turned', reader)
    assert image_size(folder / 'turned', reader) == expected.shape[:2]
    thumbnail = make_thumbnail(str(folder / 'turned'), reader)
    assert (thumbnail[1] > 1) == (expected.shape[1] > expected.shape[0])


@tries(150)
@given(
    place=st.floats(0, 1),
    value=st.integers(0, 255),
    cut=st.none() | st.floats(0, 1),
    kind=st.sampled_from(['PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'JPEG2000']),
    reader=st.sampled_from(READERS),
)
def test_damage_is_judged_as_mmdet_judges_it(place, value, cut, kind, reader, tmp_path_factory):
    buffer = io.BytesIO()
    of_mode('RGB').save(buffer, kind)
    content = bytearray(buffer.getvalue())
    content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.mktemp('damage') / 'picture'
    path.write_bytes(bytes(content[: None if cut is None else int(cut * len(content))]))
    expected = mmdets(path, reader)
    if is_plain_jpeg(path.read_bytes(), reader) or (expected is not None and expected.size > 10**7):
        return
    pixels = attempt(lambda: read_pixels(read_file(path), reader))
    assert (pixels is None) == (expected is None)
    assert (attempt(decode, path, Transform(24, 24, reader=reader)) is None) == (expected is None)
    if expected is not None and expected.dtype == np.uint8:
        assert np.array_equal(pixels, as_picture(expected))
