"""Rewriting annotation files of real size with 80 % of their samples, against load and dump.

    python benchmarks/rewrite.py [--quick] [--rounds 3]

Every run is a process of its own; methods alternate, and the table has medians. All write through
``atomic_open``, so that everybody pays for syncing to disk. orjson is measured where it is
installed, with the garbage collector paused. The files are a COCO json, and infos of nuScenes as
mmdet3d 1.x and as BEVFormer make them.
"""

import argparse
import importlib.util
import json
import pickle
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, parse, save

IMAGES, ANNOTATIONS, FRAMES, SHARE = 118_287, 860_001, 28_130, 0.8


def make_coco(path: Path, images: int, annotations: int) -> None:
    """Writes a COCO json with the fields and about the record sizes of instances_train2017.json."""
    chance = random.Random(0)
    polygons = [
        ', '.join(f'{chance.uniform(0, 640):.2f}' for _ in range(2 * chance.randint(6, 40)))
        for _ in range(2000)
    ]
    with open(path, 'w', encoding='utf-8') as file:
        file.write(
            '{"info": {"description": "synthetic"}, "licenses": [{"id": 1, "url": ""}], "images": ['
        )
        file.writelines(
            _separated(
                f'{{"license": 3, "file_name": "{i:012d}.jpg", '
                f'"coco_url": "http://images.cocodataset.org/train2017/{i:012d}.jpg", '
                '"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", '
                f'"flickr_url": "http://farm9.staticflickr.com/8186/{i:010d}_z.jpg", "id": {i}}}'
                for i in range(images)
            )
        )
        file.write('], "annotations": [')
        file.writelines(
            _separated(
                f'{{"segmentation": [[{chance.choice(polygons)}]], "area": '
                f'{chance.uniform(1, 9999):.4f}, "iscrowd": 0, '
                f'"image_id": {chance.randrange(images)}, "bbox": [{chance.uniform(0, 600):.2f}, '
                f'{chance.uniform(0, 400):.2f}, {chance.uniform(1, 60):.2f}, '
                f'{chance.uniform(1, 60):.2f}], '
                f'"category_id": {chance.randint(1, 90)}, "id": {i}}}'
                for i in range(annotations)
            )
        )
        file.write('], "categories": [')
        file.writelines(
            _separated(
                f'{{"supercategory": "thing", "id": {i}, "name": "thing {i}"}}'
                for i in range(1, 91)
            )
        )
        file.write(']}')


def _separated(records: Iterator[str]) -> Iterator[str]:
    yield next(records)
    yield from (f', {record}' for record in records)


def make_infos(path: Path, frames: int, legacy: bool) -> None:
    """Writes an info file with about the objects of nuScenes'.

    They are 20 a frame in LiDAR's view, 4 in each of 6 cameras'.
    """
    generator = np.random.default_rng(0)
    cameras = [f'CAM_{i}' for i in range(6)]

    def matrix(size: int) -> list[list[float]]:
        return generator.random((size, size)).tolist()

    def instance(*more: str) -> dict[str, Any]:
        lists = {name: generator.random(4).tolist() for name in more}
        return dict(
            bbox_label=0,
            bbox_label_3d=0,
            bbox_3d=generator.random(7).tolist(),
            bbox_3d_isvalid=True,
            velocity=generator.random(2).tolist(),
            num_lidar_pts=1,
            num_radar_pts=0,
            **lists,
        )

    def frame(i: int) -> dict[str, Any]:
        images = {
            name: dict(
                img_path=f'{name}_{i}.jpg',
                cam2img=matrix(3),
                cam2ego=matrix(4),
                lidar2cam=matrix(4),
                sample_data_token=f'{i:031x}{name[-1]}',
                timestamp=float(i),
            )
            for name in cameras
        }
        return dict(
            sample_idx=i,
            token=token(i),
            timestamp=float(i),
            ego2global=matrix(4),
            images=images,
            lidar_points=dict(num_pts_feats=5, lidar_path=f'{i}.bin', lidar2ego=matrix(4)),
            instances=[instance() for _ in range(20)],
            cam_instances={
                name: [instance('bbox', 'center_2d') for _ in range(4)] for name in cameras
            },
        )

    def pose(name: str, i: int) -> dict[str, Any]:
        ego = {
            f'{frame}2{to}_{part}': generator.random(size).tolist()
            for frame, to in (('sensor', 'ego'), ('ego', 'global'))
            for part, size in (('translation', 3), ('rotation', 4))
        }
        return dict(
            ego,
            data_path=f'./data/nuscenes/samples/{name}/{i}.jpg',
            type=name,
            timestamp=i,
            sample_data_token=f'{i:032x}',
            sensor2lidar_rotation=generator.random((3, 3)),
            sensor2lidar_translation=generator.random(3),
        )

    def legacy_frame(i: int) -> dict[str, Any]:
        cams = {
            name: dict(pose(name, i), cam_intrinsic=generator.random((3, 3))) for name in cameras
        }
        return dict(
            lidar_path=f'{i}.bin',
            token=token(i),
            prev=token(i - 1) if i % 40 else '',
            next=token(i + 1) if (i + 1) % 40 and i + 1 < frames else '',
            can_bus=generator.random(18),
            frame_idx=i % 40,
            sweeps=[pose('LIDAR_TOP', i) for _ in range(10)],
            cams=cams,
            scene_token=token(i // 40),
            timestamp=i,
            gt_boxes=generator.random((20, 7)),
            gt_names=np.array(['car'] * 20),
            gt_velocity=generator.random((20, 2)),
            num_lidar_pts=np.arange(20),
            num_radar_pts=np.arange(20),
            valid_flag=np.ones(20, bool),
        )

    content = (
        dict(infos=[legacy_frame(i) for i in range(frames)], metadata=dict(version='v1.0-trainval'))
        if legacy
        else dict(metainfo=dict(dataset='nuscenes'), data_list=[frame(i) for i in range(frames)])
    )
    path.write_bytes(pickle.dumps(content, protocol=4))


def token(frame: int) -> str:
    """32 digits, as nuScenes names its frames."""
    return f'{frame:032x}'


def ours(source: Path, target: Path, keep: set[int]) -> None:
    """The package's function."""
    from adadedup_mm.annotations.coco import rewrite_coco

    rewrite_coco(source, target, keep)


def with_json(source: Path, target: Path, keep: set[int]) -> None:
    """``json.loads`` and ``json.dumps``."""
    _load_filter_dump(
        json.loads, lambda content: json.dumps(content).encode(), source, target, keep
    )


def with_orjson(source: Path, target: Path, keep: set[int]) -> None:
    """``orjson.loads`` and ``orjson.dumps`` with the garbage collector paused."""
    import gc

    import orjson

    gc.disable()
    _load_filter_dump(orjson.loads, orjson.dumps, source, target, keep)


def _load_filter_dump(
    loads: Callable, dumps: Callable, source: Path, target: Path, keep: set[int]
) -> None:
    from adadedup_mm.base.files import atomic_open

    content = loads(source.read_bytes())
    content['images'] = [image for image in content['images'] if image['id'] in keep]
    content['annotations'] = [
        record for record in content['annotations'] if record['image_id'] in keep
    ]
    with atomic_open(target) as file:
        file.write(dumps(content))


def copy_file(source: Path, target: Path, keep: set[int]) -> None:
    """Copies the file as it is: the floor."""
    import shutil

    from adadedup_mm.base.files import atomic_open

    with open(source, 'rb') as original, atomic_open(target) as file:
        shutil.copyfileobj(original, file, 1 << 20)


def infos_ours(source: Path, target: Path, keep: set[int]) -> None:
    """The package's function, which repairs the links of legacy frames as well."""
    from adadedup_mm.annotations.infos import rewrite_infos

    rewrite_infos(source, target, set(map(token, keep)))


def infos_pickle(source: Path, target: Path, keep: set[int]) -> None:
    """``pickle.load`` and ``pickle.dump``."""
    from adadedup_mm.base.files import atomic_open

    tokens = set(map(token, keep))
    content = pickle.loads(source.read_bytes())
    for key in content.keys() & {'infos', 'data_list'}:
        content[key] = [record for record in content[key] if record['token'] in tokens]
    with atomic_open(target) as file:
        pickle.dump(content, file, protocol=4)


METHODS: dict[str, Callable[[Path, Path, set[int]], None]] = {
    'ours': ours,
    'json': with_json,
    'orjson, gc paused': with_orjson,
    'copy': copy_file,
    'ours, infos': infos_ours,
    'pickle, infos': infos_pickle,
}


def measure(name: str, source: Path, target: Path, images: int) -> None:
    """Runs one method in this process and prints what it took as JSON."""
    import adadedup_mm.annotations.infos  # noqa: F401  # imports are not what is measured

    keep = set(random.Random(1).sample(range(images), round(SHARE * images)))
    start, cpu = time.perf_counter(), time.process_time()
    METHODS[name](source, target, keep)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(dict(seconds=seconds, cpu=cpu, megabytes=peak)))


def compare(names: list[str], source: Path, count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Runs methods in turn on a file with ``count`` samples and prints a table.

    Returns:
        Medians by method.
    """
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [
                sys.executable,
                __file__,
                '--measure',
                name,
                source,
                source.with_name(name),
                str(count),
            ]
            results[name].append(
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            )
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in results.items()
    }
    print(
        f'{source.name}: {source.stat().st_size / 1e6:.0f} MB, {count} samples, {SHARE:.0%} of '
        'them kept'
    )
    print(
        f'{"method":20s} {"seconds":>8s} {"CPU s":>8s} {"peak MB":>8s} {"x ours":>8s} '
        f'{"x ours, CPU":>12s}'
    )
    for name, row in median.items():
        print(
            f'{name:20s} {row["seconds"]:8.2f} {row["cpu"]:8.2f} {row["megabytes"]:8.0f} '
            f'{row["seconds"] / median[names[0]]["seconds"]:8.2f} '
            f'{row["cpu"] / median[names[0]]["cpu"]:12.2f}',
            flush=True,
        )
    return median


def coco(source: Path, scale: int, rounds: int) -> list[Figure]:
    """COCO's json."""
    make_coco(source, IMAGES // scale, ANNOTATIONS // scale)
    names = [
        'ours',
        'json',
        *['orjson, gc paused'] * bool(importlib.util.find_spec('orjson')),
        'copy',
    ]
    median = compare(names, source, IMAGES // scale, rounds)
    # In a process of its own: this one's memory would count for the processes it starts.
    check = (
        'import json, sys; '
        'a, b = (json.load(open(path)) for path in sys.argv[1:]); '
        'sys.exit(a != b)'
    )
    subprocess.run(
        [sys.executable, '-c', check, *(source.with_name(name) for name in ('ours', 'json'))],
        check=True,
    )
    case = f'COCO json of {source.stat().st_size / 1e6:.0f} MB, {SHARE:.0%} kept'
    references = {
        'json': ('json.loads and json.dumps', 8),
        'orjson, gc paused': ('orjson with the collector paused', 2),
    }
    speeds = [
        Figure(
            f'{case}: speed', reference, median[name]['seconds'] / median['ours']['seconds'], target
        )
        for name, (reference, target) in references.items()
        if name in median
    ]
    return [
        *speeds,
        Figure(
            f'{case}: peak memory',
            'the whole process',
            median['ours']['megabytes'],
            200,
            at_most=True,
            form='{:.0f} MB',
        ),
    ]


def infos(source: Path, frames: int, legacy: bool, rounds: int) -> Figure:
    """Infos of nuScenes."""
    # In a process of its own as well.
    subprocess.run(
        [sys.executable, __file__, '--make-infos', source, str(frames), str(int(legacy))],
        check=True,
    )
    median = compare(['ours, infos', 'pickle, infos'], source, frames, rounds)
    return Figure(
        f'{source.name} of {source.stat().st_size / 1e6:.0f} MB, {SHARE:.0%} kept: speed',
        'pickle.load and pickle.dump',
        median['pickle, infos']['seconds'] / median['ours, infos']['seconds'],
        2.3,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3, help='runs of each method')
    parser.add_argument('--measure', nargs=4, help=argparse.SUPPRESS)
    parser.add_argument('--make-infos', nargs=3, help=argparse.SUPPRESS)
    args = parse(__doc__, parser)
    if args.measure:
        name, source, target, count = args.measure
        measure(name, Path(source), Path(target), int(count))
        return
    if args.make_infos:
        path, frames, legacy = args.make_infos
        make_infos(Path(path), int(frames), bool(int(legacy)))
        return
    figures = []
    with tempfile.TemporaryDirectory() as name:
        figures += coco(Path(name, 'instances.json'), 20 if args.quick else 1, args.rounds)
    for legacy, file in ((False, 'mmdet3d infos'), (True, 'BEVFormer infos')):
        with tempfile.TemporaryDirectory() as name:
            figures.append(
                infos(Path(name, file), FRAMES // (10 if args.quick else 1), legacy, args.rounds)
            )
    save(figures, args.figures)


if __name__ == '__main__':
    main()
