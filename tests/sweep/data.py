"""Small data for the datasets of MMDetection's packaged configs.

Each maker writes ten pictures and their annotations in the format of a dataset class, under the
names that the config gives. Every picture has an object that no filter drops.
"""

import csv
import json
import pickle
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.structures import InstanceData

COUNT = 10
HEIGHT, WIDTH = 80, 96


def fill(settings, folder):
    """Writes the data of a dataset's dict below a folder, and makes the dict point there."""
    settings['data_root'] = f'{folder}/{settings.get("data_root") or ""}'
    if settings['type'] not in WITHOUT_DATA:
        MAKERS[settings['type']](settings)


def root(settings):
    return Path(settings['data_root'])


def ann_file(settings):
    path = root(settings) / settings['ann_file']
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def image_folder(settings):
    prefix = settings.get('data_prefix', {})
    return root(settings) / (prefix.get('img') or prefix.get('img_path') or '')


def class_names(settings):
    given = settings.get('metainfo') or {}
    return given.get('classes') or DATASETS.get(settings['type']).METAINFO['classes']


def picture_names(settings):
    """Names without suffix, which differ between the datasets of a config."""
    stem = Path(settings.get('ann_file') or 'picture').stem
    return [f'{stem}_{number:02}' for number in range(COUNT)]


def boxes(number):
    """Left, top, right and bottom of the one or two objects in a picture."""
    first = (4 + number, 6, 48 + number, 46)
    second = (50, 30 + number, 92, 76)
    return [first, second][: 1 + number % 2]


def label(number, position, classes):
    return (number + position) % min(len(classes), 3)


def objects_by_class(settings):
    """How many objects of each class there are; nothing where classes have no names here."""
    if settings['type'] not in NAMED or 'unlabeled' in settings['ann_file']:
        return Counter()
    classes = class_names(settings)
    return Counter(
        classes[label(number, position, classes)]
        for number in range(COUNT)
        for position in range(len(boxes(number)))
    )


def write_picture(path, number, settings):
    """Coloured squares and the objects; pictures 0 and 1, 2 and 3, ... look almost the same."""
    seed = zlib.crc32(str(settings.get('ann_file')).encode())
    rng = np.random.default_rng([seed, number // 2])
    squares = rng.integers(0, 240, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    pixels = squares.repeat(8, axis=0).repeat(8, axis=1) + np.uint8(number % 2)
    for left, top, right, bottom in boxes(number):
        pixels[top:bottom, left:right] //= 2
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def write_pictures(settings, names):
    """Pictures of these names in the dataset's own folder."""
    for number, name in enumerate(names):
        write_picture(image_folder(settings) / name, number, settings)


def coco_box(box):
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def outline(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def coco_content(settings, file_names):
    """A COCO json's content with the category ids 1, 2, ... in the order of the classes."""
    classes = class_names(settings)
    images, annotations = [], []
    for number, file_name in enumerate(file_names):
        images.append(dict(id=number + 1, file_name=file_name, height=HEIGHT, width=WIDTH))
        for position, box in enumerate(boxes(number)):
            _, _, width, height = coco_box(box)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    bbox=coco_box(box),
                    category_id=label(number, position, classes) + 1,
                    area=width * height,
                    iscrowd=0,
                    segmentation=outline(box),
                )
            )
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


def make_coco(settings):
    names = [f'{name}.jpg' for name in picture_names(settings)]
    content = coco_content(settings, names)
    if 'unlabeled' in settings['ann_file']:
        content['annotations'] = []
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, names)
    if settings.get('proposal_file'):
        write_proposals(settings, names)


def write_proposals(settings, names):
    """A pickle of proposals for each image, as MMDetection's ``DumpProposals`` writes it."""
    proposals = {}
    for number, name in enumerate(names):
        rectangles = np.array(boxes(number), np.float32)
        path = (settings.get('data_prefix', {}).get('img') or '') + name
        scores = np.ones(len(rectangles), np.float32)
        proposals[path] = InstanceData(bboxes=rectangles, scores=scores)
    path = root(settings) / settings['proposal_file']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(proposals))


def make_objects365_v2(settings):
    names = [f'{name}.jpg' for name in picture_names(settings)]
    content = coco_content(settings, [f'images/v2/patch3/{name}' for name in names])
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, [f'patch3/{name}' for name in names])


def make_lvis_v05(settings):
    names = [f'{number:012}.jpg' for number in range(COUNT)]
    content = coco_content(settings, [f'COCO_train2014_{name}' for name in names])
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, names)


def make_lvis_v1(settings):
    names = [f'train2017/{number:012}.jpg' for number in range(COUNT)]
    content = coco_content(settings, names)
    for image, name in zip(content['images'], names, strict=True):
        image['coco_url'] = f'http://images.cocodataset.org/{name}'
        del image['file_name']
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, names)


def make_v3det(settings):
    names = [f'category {index}' for index in range(200)]
    file = root(settings) / 'annotations/category_name_13204_v3det_2023_v1.txt'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(names) + '\n')
    make_coco(settings | dict(metainfo=dict(classes=names)))


def make_video(settings):
    """Two videos of five pictures."""
    names = [f'video{number // 5}/{number % 5:05}.jpg' for number in range(COUNT)]
    content = coco_content(settings, names)
    content['videos'] = [dict(id=index + 1, name=f'video{index}') for index in range(2)]
    for number, image in enumerate(content['images']):
        image.update(video_id=number // 5 + 1, frame_id=number % 5)
    for annotation in content['annotations']:
        annotation.update(instance_id=1, visibility=1.0, mot_conf=1.0)
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, names)


def make_youtube_vis(settings):
    kind = DATASETS.get(settings['type'])
    kind.set_dataset_classes(settings['dataset_version'])
    make_video(settings)


def make_panoptic(settings):
    """Things on one kind of stuff, and for each picture a PNG whose colours are ids of segments."""
    meta = DATASETS.get(settings['type']).METAINFO
    names = picture_names(settings)
    content = coco_content(settings, [f'{name}.jpg' for name in names])
    stuff = meta['classes'].index(meta['stuff_classes'][0]) + 1
    for category in content['categories']:
        category['isthing'] = int(category['name'] in meta['thing_classes'])
    segments = [[] for _ in names]
    for thing in content['annotations']:
        entry = {key: thing[key] for key in ('id', 'category_id', 'bbox', 'area', 'iscrowd')}
        segments[thing['image_id'] - 1].append(entry)
    for number in range(COUNT):
        whole = [0, 0, WIDTH, HEIGHT]
        rest = dict(id=1000 + number, category_id=stuff, bbox=whole, area=500, iscrowd=0)
        segments[number].append(rest)
    content['annotations'] = [
        dict(image_id=number + 1, file_name=f'{name}.png', segments_info=segments[number])
        for number, name in enumerate(names)
    ]
    ann_file(settings).write_text(json.dumps(content))
    for number, name in enumerate(names):
        write_picture(image_folder(settings) / f'{name}.jpg', number, settings)
        *things, rest = [segment['id'] for segment in segments[number]]
        ids = np.full((HEIGHT, WIDTH), rest, np.int64)
        for thing, (left, top, right, bottom) in zip(things, boxes(number), strict=True):
            ids[top:bottom, left:right] = thing
        blue_green_red = np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=-1)
        write_map(root(settings) / settings['data_prefix']['seg'] / f'{name}.png', blue_green_red)


def write_map(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels.astype(np.uint8))


def make_semantic(settings):
    """Pictures and maps of labels in two folders, and no annotation file."""
    for number, name in enumerate(picture_names(settings)):
        write_picture(image_folder(settings) / f'{name}.jpg', number, settings)
        labels = np.full((HEIGHT, WIDTH), number)
        write_map(root(settings) / settings['data_prefix']['seg_map_path'] / f'{name}.png', labels)


def xml_content(number, classes, folder):
    objects = ''
    for position, (left, top, right, bottom) in enumerate(boxes(number)):
        name = classes[label(number, position, classes)]
        corners = f'<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>'
        objects += (
            f'<object><name>{name}</name><difficult>0</difficult>'
            f'<bndbox>{corners}</bndbox></object>'
        )
    size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>'
    return f'<annotation><folder>{folder}</folder>{size}{objects}</annotation>'


def write_xml_set(settings, folder, pictures):
    """A list of names, an XML file for each of them, and the pictures."""
    names = picture_names(settings)
    classes = class_names(settings)
    ann_file(settings).write_text('\n'.join(names) + '\n')
    (folder / 'Annotations').mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / 'Annotations' / f'{name}.xml').write_text(xml_content(number, classes, pictures))
        write_picture(folder / pictures / f'{name}.jpg', number, settings)


def make_voc(settings):
    write_xml_set(settings, root(settings) / settings['data_prefix']['sub_data_root'], 'JPEGImages')


def make_wider_face(settings):
    write_xml_set(settings, image_folder(settings), '0--Parade')


def make_crowd_human(settings):
    lines = []
    for number, name in enumerate(picture_names(settings)):
        people = [
            dict(tag='person', fbox=coco_box(box), hbox=coco_box(box), vbox=coco_box(box))
            for box in boxes(number)
        ]
        lines.append(json.dumps(dict(ID=name, gtboxes=people)))
        write_picture(image_folder(settings) / f'{name}.jpg', number, settings)
    ann_file(settings).write_text('\n'.join(lines))


def shares(box):
    left, top, right, bottom = box
    return left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT


def write_open_images_metas(settings):
    """The pictures, and the pickle with their sizes."""
    metas = []
    for number, name in enumerate(picture_names(settings)):
        metas.append(dict(filename=f'{name}.jpg', ori_shape=(HEIGHT, WIDTH, 3)))
        write_picture(image_folder(settings) / f'{name}.jpg', number, settings)
    (root(settings) / settings['meta_file']).write_bytes(pickle.dumps(metas))


def make_open_images(settings):
    """Boxes as lines of a CSV file, classes as identifiers that another file explains."""
    classes = ['Person', 'Car', 'Tree']
    columns = (
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,'
        'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside'
    )
    rows = [columns.split(',')]
    for number, name in enumerate(picture_names(settings)):
        for position, box in enumerate(boxes(number)):
            left, top, right, bottom = shares(box)
            identifier = f'/m/{label(number, position, classes)}'
            rows.append([name, 'xclick', identifier, 1, left, right, top, bottom, 0, 0, 0, 0, 0])
    with open(ann_file(settings), 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    with open(root(settings) / settings['label_file'], 'w', newline='') as file:
        for index, name in enumerate(classes):
            csv.writer(file).writerow([f'/m/{index}', name])
    tree = dict(LabelName='/m/all', Subcategory=[dict(LabelName='/m/0'), dict(LabelName='/m/1')])
    (root(settings) / settings['hierarchy_file']).write_text(json.dumps(tree))
    write_open_images_metas(settings)


def make_open_images_challenge(settings):
    """A block of lines for each picture, with labels that begin at 1."""
    classes = ['Person', 'Car', 'Tree']
    lines = []
    for number, name in enumerate(picture_names(settings)):
        lines += [f'{name}.jpg', f'{HEIGHT} {WIDTH}', str(len(boxes(number)))]
        for position, box in enumerate(boxes(number)):
            left, top, right, bottom = shares(box)
            lines.append(f'{label(number, position, classes) + 1} {left} {top} {right} {bottom} 0')
    ann_file(settings).write_text('\n'.join(lines) + '\n')
    with open(root(settings) / settings['label_file'], 'w', newline='') as file:
        for index, name in enumerate(classes):
            csv.writer(file).writerow([f'/m/{index}', name, index + 1])
    with open(root(settings) / settings['hierarchy_file'], 'wb') as file:
        np.save(file, np.eye(len(classes) + 1))
    write_open_images_metas(settings)


def make_odvg(settings):
    """A line for each picture: labelled boxes where there is a map of labels, else a caption."""
    classes = ['person', 'car', 'tree']
    lines = []
    for number, name in enumerate(picture_names(settings)):
        record = dict(filename=f'{name}.jpg', height=HEIGHT, width=WIDTH)
        if settings.get('label_map_file'):
            labels = [label(number, position, classes) for position in range(len(boxes(number)))]
            objects = [
                dict(bbox=box, label=index, category=classes[index])
                for box, index in zip(boxes(number), labels, strict=True)
            ]
            record['detection'] = dict(instances=objects)
        else:
            regions = [
                dict(bbox=box, phrase='a thing', tokens_positive=[[0, 7]]) for box in boxes(number)
            ]
            record['grounding'] = dict(caption='a thing .', regions=regions)
        lines.append(json.dumps(record))
        write_picture(image_folder(settings) / f'{name}.jpg', number, settings)
    ann_file(settings).write_text('\n'.join(lines) + '\n')
    if settings.get('label_map_file'):
        names = {str(index): name for index, name in enumerate(classes)}
        (root(settings) / settings['label_map_file']).write_text(json.dumps(names))


def make_ref_coco(settings):
    """Two referring expressions for each picture, in a pickle beside the COCO json."""
    names = [f'{name}.jpg' for name in picture_names(settings)]
    content = coco_content(settings | dict(metainfo=dict(classes=['thing'])), names)
    ann_file(settings).write_text(json.dumps(content))
    references = [
        dict(
            ref_id=item['id'],
            ann_id=item['id'],
            image_id=item['image_id'],
            split=settings['split'],
            sentences=[dict(raw='the left one'), dict(raw='the bright one')],
        )
        for item in content['annotations']
    ]
    (root(settings) / settings['split_file']).write_bytes(pickle.dumps(references))
    write_pictures(settings, names)


def make_referring_phrases(settings):
    """A COCO json whose images carry a caption and the places of its phrases."""
    names = [f'{name}.jpg' for name in picture_names(settings)]
    content = coco_content(settings | dict(metainfo=dict(classes=['thing'])), names)
    for image in content['images']:
        image.update(caption='a thing', dataset_name='refcoco', tokens_positive_eval=[[[0, 7]]])
    for annotation in content['annotations']:
        annotation['phrase_ids'] = 1
    ann_file(settings).write_text(json.dumps(content))
    write_pictures(settings, names)


def make_captions(settings):
    names = [f'{name}.jpg' for name in picture_names(settings)]
    lines = [dict(image=name, caption=['squares', 'a thing on squares']) for name in names]
    ann_file(settings).write_text(json.dumps(lines))
    write_pictures(settings, names)


def make_reid(settings):
    """Pictures of two persons."""
    names = [f'{name}.jpg' for name in picture_names(settings)]
    lines = [f'{name} {number % 2}' for number, name in enumerate(names)]
    ann_file(settings).write_text('\n'.join(lines))
    write_pictures(settings, names)


# Their classes are those of the config or of the dataset class.
NAMED = (
    'ADE20KInstanceDataset',
    'ADE20KPanopticDataset',
    'CityscapesDataset',
    'CocoDataset',
    'CocoPanopticDataset',
    'CrowdHumanDataset',
    'DeepFashionDataset',
    'iSAIDDataset',
    'Objects365V1Dataset',
    'Objects365V2Dataset',
    'VOCDataset',
    'WIDERFaceDataset',
)
# Their files are read by packages of their own, whose formats are not made here.
WITHOUT_DATA = ('DSDLDetDataset', 'DODDataset')

MAKERS = dict(
    ADE20KInstanceDataset=make_coco,
    ADE20KPanopticDataset=make_panoptic,
    ADE20KSegDataset=make_semantic,
    CityscapesDataset=make_coco,
    CocoCaptionDataset=make_captions,
    CocoDataset=make_coco,
    CocoPanopticDataset=make_panoptic,
    CocoSegDataset=make_semantic,
    CrowdHumanDataset=make_crowd_human,
    DeepFashionDataset=make_coco,
    Flickr30kDataset=make_referring_phrases,
    LVISV05Dataset=make_lvis_v05,
    LVISV1Dataset=make_lvis_v1,
    MDETRStyleRefCocoDataset=make_referring_phrases,
    MOTChallengeDataset=make_video,
    ODVGDataset=make_odvg,
    Objects365V1Dataset=make_coco,
    Objects365V2Dataset=make_objects365_v2,
    OpenImagesChallengeDataset=make_open_images_challenge,
    OpenImagesDataset=make_open_images,
    ReIDDataset=make_reid,
    RefCocoDataset=make_ref_coco,
    V3DetDataset=make_v3det,
    VOCDataset=make_voc,
    WIDERFaceDataset=make_wider_face,
    YouTubeVISDataset=make_youtube_vis,
    iSAIDDataset=make_coco,
)
