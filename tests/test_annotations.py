import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from adadedup_mm.annotations import json_records
from adadedup_mm.annotations.coco import index_coco, rewrite_coco, scene_name
from adadedup_mm.annotations.data_list import rewrite_data_list
from adadedup_mm.annotations.image_set import rewrite_image_set
from adadedup_mm.base.errors import UserError

TEXT = st.text(max_size=12) | st.sampled_from(
    ['{', '}', '"', '\\', '}, {', '"id": 3', '],', '\\"}', '\ud800', 'ä☃', '\n']
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(TEXT.filter(lambda key: key not in ('id', 'image_id')), VALUES, max_size=4)
IDS = st.integers(-5, 5) | st.integers(2**53, 2**53 + 3) | st.integers(2**70, 2**70 + 1)


@st.composite
def datasets(draw):
    """A COCO-like dict and the ids to keep."""
    ids = draw(st.lists(draw(st.sampled_from([IDS, TEXT])), unique=True, max_size=6))
    shuffle = draw(st.randoms(use_true_random=False)).shuffle
    images = [_shuffled(dict(draw(FIELDS), id=image_id), shuffle) for image_id in ids]
    annotations = [
        _shuffled(dict(draw(FIELDS), image_id=draw(st.sampled_from(ids))), shuffle)
        for _ in range(draw(st.integers(0, 6)) if ids else 0)
    ]
    others = draw(
        st.dictionaries(
            TEXT.filter(lambda key: key not in ('images', 'annotations')), VALUES, max_size=4
        )
    )
    content = _shuffled(dict(others, images=images, annotations=annotations), shuffle)
    return content, draw(st.sets(st.sampled_from(ids))) if ids else set()


def _shuffled(mapping, shuffle):
    items = list(mapping.items())
    shuffle(items)
    return dict(items)


def space(chance):
    return ''.join(chance.choices(' \n\t\r', k=chance.choice([0, 0, 1, 3])))


def render(value, chance):
    """JSON text with white space wherever it may be."""
    if isinstance(value, dict):
        members = (
            f'{space(chance)}{json.dumps(key)}{space(chance)}:{space(chance)}{render(item, chance)}'
            for key, item in value.items()
        )
        return '{' + (','.join(members) or space(chance)) + '}'
    if isinstance(value, list):
        items = (f'{space(chance)}{render(item, chance)}{space(chance)}' for item in value)
        return '[' + (','.join(items) or space(chance)) + ']'
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    return text if text.isascii() or '\ud800' not in text else json.dumps(value)


def render_array(records, flags, chance):
    """An array of records as text, and the text expected when only the flagged ones stay."""
    parts = [(space(chance), render(record, chance), space(chance)) for record in records]
    whole = '[' + (','.join(''.join(part) for part in parts) or ' ') + ']'
    if not parts:
        return whole, whole
    expected, first = '[' + parts[0][0], True
    for i, ((before, text, _), flag) in enumerate(zip(parts, flags, strict=True)):
        if flag:
            expected += text if first else f'{parts[i - 1][2]},{before}{text}'
            first = False
    return whole, expected + parts[-1][2] + ']'


def filtered(content, keep):
    """What rewriting means, in plain Python."""
    result = dict(content, images=[image for image in content['images'] if image['id'] in keep])
    if 'annotations' in content:
        result['annotations'] = [
            record for record in content['annotations'] if record['image_id'] in keep
        ]
    return result


def ordered(text):
    """Parsed JSON as text: differs whenever content or order of keys do, also with NaN."""
    return repr(json.loads(text, object_pairs_hook=lambda pairs: ('object', pairs)))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('annotations')


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def small(images=4, **more):
    return dict(
        info=dict(year=2017),
        images=[dict(id=i, file_name=f'{i}.jpg', height=10, width=20) for i in range(images)],
        annotations=[
            dict(id=10 * i + j, image_id=i, bbox=[1, 2, 3, 4], area=12, category_id=1, iscrowd=0)
            for j in range(2)
            for i in range(images)
        ],
        categories=[dict(id=1, name='car')],
        **more,
    )


@settings(max_examples=200, deadline=None)
@given(datasets(), st.integers(0, 2**32), st.sampled_from([1, 16, 1 << 22]))
def test_the_scanner_drops_records_and_changes_no_other_byte(folder, dataset, seed, block):
    (content, keep), chance = dataset, random.Random(seed)
    source_text = expected_text = space(chance) + '{'
    for i, (key, value) in enumerate(content.items()):
        name = {'images': 'id', 'annotations': 'image_id'}.get(key)
        if name:
            before, after = render_array(value, [record[name] in keep for record in value], chance)
        else:
            before = after = render(value, chance)
        start = (
            (',' if i else '')
            + space(chance)
            + json.dumps(key)
            + space(chance)
            + ':'
            + space(chance)
        )
        end = space(chance)
        source_text += start + before + end
        expected_text += start + after + end
    tail = '}' + space(chance)
    source, target = folder / 'source.json', folder / 'target.json'
    source.write_bytes((source_text + tail).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, '_BLOCK', block)
        patch.setattr(json_records, '_RELEASE', block)
        patch.setattr(json_records, '_rewrite_plain', None)
        counts = rewrite_coco(source, target, keep)
    assert target.read_bytes().decode() == expected_text + tail
    expected = filtered(content, keep)
    assert ordered(target.read_bytes()) == ordered(json.dumps(expected))
    assert counts['images'] == (len(content['images']), len(expected['images']))
    assert counts['annotations'] == (len(content['annotations']), len(expected['annotations']))


@settings(max_examples=100, deadline=None)
@given(datasets(), st.sampled_from(['utf-8-sig', 'utf-16', 'utf-32', 'twice']))
def test_valid_json_that_the_scanner_does_not_know_goes_through_the_json_module(
    folder, dataset, form
):
    content, keep = dataset
    source, target = folder / 'odd.json', folder / 'odd_target.json'
    text = json.dumps(content)
    if form == 'twice':
        source.write_text(
            text[:-1] + ', "images": [], "images": ' + json.dumps(content['images']) + '}'
        )
    else:
        source.write_bytes(text.encode(form))
    rewrite_coco(source, target, keep)
    assert ordered(target.read_bytes()) == ordered(json.dumps(filtered(json.loads(text), keep)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(
                [
                    b'',
                    b'{',
                    b'}',
                    b'[',
                    b']',
                    b'"',
                    b',',
                    b':',
                    b'\\',
                    b'0',
                    b'\xff',
                    b'\x00',
                    b'null',
                    b'[]',
                ]
            ),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_broken_files_give_a_user_error_or_the_right_result(folder, edits, truncate):
    data = bytearray(json.dumps(small(extra={'a': [1, {'b': '}'}]})).encode())
    for where, insert, remove in edits:
        at = int(where * len(data))
        data[at : at + remove] = insert
    if truncate:
        del data[int(edits[0][0] * len(data)) :]
    source, target = folder / 'broken.json', folder / 'broken_target.json'
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    try:
        rewrite_coco(source, target, {1, 3})
    except UserError as error:
        assert '\n' not in str(error)
        assert not target.exists()
    else:
        try:
            content = json.loads(bytes(data))
        except ValueError:
            return  # e.g. bytes inside of a string that are no UTF-8 stay as they are
        assert ordered(target.read_bytes()) == ordered(json.dumps(filtered(content, {1, 3})))
    assert not list(folder.glob('.*'))


def test_keeping_everything_copies_the_file(tmp_path):
    source = write(tmp_path / 'a.json', json.dumps(small(), indent=1))
    rewrite_coco(source, tmp_path / 'b.json', range(4))
    assert (tmp_path / 'b.json').read_bytes() == source.read_bytes()


def test_nested_objects_of_changing_depth_are_found(tmp_path):
    content = small()
    for i, record in enumerate(content['annotations']):
        record['segments_info'] = [dict(id=j, text='}{"') for j in range(i % 4)]
    source = write(tmp_path / 'a.json', content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, '_rewrite_plain', None)
        rewrite_coco(source, tmp_path / 'b.json', {0, 2})
    assert json.loads((tmp_path / 'b.json').read_bytes()) == filtered(content, {0, 2})


def test_rewritten_file_loads_in_pycocotools_and_the_original_stays(tmp_path):
    source = write(tmp_path / 'instances.json', small())
    before = hashlib.sha256(source.read_bytes()).digest()
    rewrite_coco(source, tmp_path / 'out' / 'instances.json', {2})
    coco = COCO(str(tmp_path / 'out' / 'instances.json'))
    assert coco.getImgIds() == [2]
    assert coco.getAnnIds() == [20, 21]
    assert coco.loadCats(1) == [dict(id=1, name='car')]
    assert hashlib.sha256(source.read_bytes()).digest() == before


def test_annotations_without_an_image_go(tmp_path):
    content = small()
    content['annotations'].append(dict(id=99, image_id=1000))
    counts = rewrite_coco(write(tmp_path / 'a.json', content), tmp_path / 'b.json', range(4))
    assert counts['annotations'] == (9, 8)


def test_numbers_of_any_length_stay(tmp_path):
    text = '{"images": [{"id": 1, "x": ' + '9' * 5000 + '}, {"id": 2}]}'
    rewrite_coco(write(tmp_path / 'a.json', text), tmp_path / 'b.json', {1})
    assert (tmp_path / 'b.json').read_text() == text.replace(', {"id": 2}', '')


@pytest.mark.parametrize(
    'content, keep, message',
    [
        ('', {1}, 'is not valid JSON'),
        ('{"images": [}', {1}, r'is not valid JSON: .*line 1 column 13'),
        ('[]', {1}, 'list at its top level'),
        ('{"annotations": []}', {1}, "no 'images' list"),
        ('{"images": {}}', {1}, "'images' is a dict instead of a list"),
        ('{"images": [{"id": null}]}', {1}, 'Expected `int'),
        ('{"images": [{"id": 1}, ' + '9' * 5000 + ']}', {1}, 'is not valid JSON'),
        ('{"images": [{"file_name": "a"}]}', {1}, 'missing required field `id`'),
        ('{"images": [{"id": 1}, {"id": 1}]}', {1}, '2 records for 1 image ids'),
        ('{"images": [{"id": 1}]}', {1, 2}, '1 records for 2 image ids'),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": "1"}]}', {1}, 'not the same kind'),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": null}]}', {1}, 'Expected `int'),
        ('{"images": ' + '[' * 100000, {1}, 'is not valid JSON|nested too deeply'),
    ],
)
def test_wrong_coco_files_give_one_line_and_leave_nothing(tmp_path, content, keep, message):
    source = write(tmp_path / 'a.json', content)
    with pytest.raises(UserError, match=message) as caught:
        rewrite_coco(source, tmp_path / 'out' / 'a.json', keep)
    assert '\n' not in str(caught.value)
    assert not list((tmp_path / 'out').rglob('*'))


def test_index_lists_scenes_and_categories(tmp_path):
    content = dict(
        categories=[dict(id=7, name='car')],
        annotations=[dict(image_id=5)],
        images=[
            dict(id=5, video_id=3),
            dict(id=2**60, scene='night', video='x'),
            dict(id=6, scene=dict(odd=True)),
        ],
    )
    for indent in (None, 3):
        index = index_coco(write(tmp_path / 'a.json', json.dumps(content, indent=indent)))
        assert index.scenes == {5: '3', 2**60: 'night', 6: ''}
        assert index.categories == ['car']
    (tmp_path / 'b.json').write_bytes(json.dumps(content).encode('utf-16'))
    assert index_coco(tmp_path / 'b.json') == index


@pytest.mark.parametrize(
    'content, message',
    [
        (
            '{"images": [{"id": 4}, {"id": 5}, {"id": 4}]}',
            '1 image ids appear more than once, first 4',
        ),
        (
            '{"images": [{"id": "4"}], "annotations": [{"image_id": 4}]}',
            "image_id is for example 4, id of an image '4'",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 4}]}',
            'a.json has annotations but no images',
        ),
        ('{"images": [{"id": 4}', 'is not valid JSON'),
        ('[{"id": 4}]', "no 'images' list"),
    ],
)
def test_index_refuses_wrong_files(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        index_coco(write(tmp_path / 'a.json', content))


def test_scene_names_are_texts_or_whole_numbers():
    assert scene_name(dict(scene=None, scene_token='abc', video=1)) == 'abc'
    assert scene_name(dict(scene=[1])) == ''


def test_image_set_keeps_lines_byte_for_byte(tmp_path):
    source = tmp_path / 'trainval.txt'
    source.write_bytes(b'000005  1\r\n000007 -1\n\nwith space\nlast')
    counts = rewrite_image_set(source, tmp_path / 'out.txt', ['000005', 'with space', 'last'])
    assert (tmp_path / 'out.txt').read_bytes() == b'000005  1\r\nwith space\nlast'
    assert counts == (4, 3)


def test_image_set_keeps_the_line_ends(tmp_path):
    source = tmp_path / 'trainval.txt'
    source.write_bytes(b'a\nb\n')
    rewrite_image_set(source, tmp_path / 'out.txt', ['a'])
    assert (tmp_path / 'out.txt').read_bytes() == b'a\n'


def test_image_set_with_a_missing_id_is_refused(tmp_path):
    source = tmp_path / 'trainval.txt'
    source.write_bytes(b'a\nb\nb\n')
    with pytest.raises(UserError, match="no lines for 1 of 2 ids to keep, first 'c'"):
        rewrite_image_set(source, tmp_path / 'out.txt', {'a', 'c'})
    assert not (tmp_path / 'out.txt').exists()


def test_all_lines_of_an_id_stay_in_an_image_set(tmp_path):
    source = tmp_path / 'trainval.txt'
    source.write_bytes(b'a\nb\na\nb 1\n')
    assert rewrite_image_set(source, tmp_path / 'out.txt', {'a'}) == (4, 2)
    assert (tmp_path / 'out.txt').read_bytes() == b'a\na\n'


@pytest.mark.parametrize(
    'lines, keep, kept',
    [
        (b'photo0\nphoto0 (1)\nphoto0 - Copy\n', {'photo0'}, b'photo0\n'),
        (b'photo0\nphoto0 (1)\nphoto0 - Copy\n', {'photo0 (1)'}, b'photo0 (1)\n'),
        (b'photo0 (1)\r\nphoto0 (2)', {'photo0 (2)'}, b'photo0 (2)'),
        (b'a\t1\r\na b\t-1\r\n', {'a'}, b'a\t1\r\na b\t-1\r\n'),
        (b'a \na\n', {'a '}, b'a \n'),
        (b'a \na\n', {'a'}, b'a\n'),
        (b'\xef\xbb\xbfa\nb\n', {'\ufeffa'}, b'\xef\xbb\xbfa\n'),
    ],
)
def test_a_line_that_is_an_id_wins_over_lines_that_begin_with_it(tmp_path, lines, keep, kept):
    (tmp_path / 'train.txt').write_bytes(lines)
    rewrite_image_set(tmp_path / 'train.txt', tmp_path / 'out.txt', keep)
    assert (tmp_path / 'out.txt').read_bytes() == kept


def test_data_list_keeps_records_by_position(tmp_path):
    text = (
        '{"metainfo": {"classes": ["car"]},\n "data_list": [{"img_path": "a.jpg"},\n'
        '  {"x": {"y": "}"}}, {}]}'
    )
    counts = rewrite_data_list(write(tmp_path / 'a.json', text), tmp_path / 'b.json', {1})
    assert (
        tmp_path / 'b.json'
    ).read_text() == '{"metainfo": {"classes": ["car"]},\n "data_list": [{"x": {"y": "}"}}]}'
    assert counts == (3, 1)


@pytest.mark.parametrize(
    'text, message',
    [('{"metainfo": {}}', "no 'data_list'"), ('{"data_list": [{}]}', 'fewer records')],
)
def test_wrong_data_lists_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        rewrite_data_list(write(tmp_path / 'a.json', text), tmp_path / 'b.json', {1})
    assert not (tmp_path / 'b.json').exists()
