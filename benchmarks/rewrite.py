"""Rewriting a COCO json of real size with 80 % of its images, against loading and dumping it.

    python benchmarks/rewrite.py [--quick] [--rounds 3]

Every run is a process of its own; methods alternate, and the table has medians. All write through ``atomic_open``, so
that everybody pays for syncing to disk. orjson is measured where it is installed, with the garbage collector paused.
"""

import argparse
import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

IMAGES, ANNOTATIONS, SHARE = 118_287, 860_001, .8


def make_file(path: Path, images: int, annotations: int) -> None:
    """Writes a COCO json with the fields and about the bytes per record of instances_train2017.json."""
    chance = random.Random(0)
    polygons = [', '.join(f'{chance.uniform(0, 640):.2f}' for _ in range(2 * chance.randint(6, 40)))
                for _ in range(2000)]
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{"info": {"description": "synthetic"}, "licenses": [{"id": 1, "url": ""}], "images": [')
        file.writelines(_separated(
            f'{{"license": 3, "file_name": "{i:012d}.jpg", "coco_url": "http://images.cocodataset.org/train2017/{i:012d}'
            f'.jpg", "height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "flickr_url": '
            f'"http://farm9.staticflickr.com/8186/{i:010d}_z.jpg", "id": {i}}}' for i in range(images)))
        file.write('], "annotations": [')
        file.writelines(_separated(
            f'{{"segmentation": [[{chance.choice(polygons)}]], "area": {chance.uniform(1, 9999):.4f}, "iscrowd": 0, '
            f'"image_id": {chance.randrange(images)}, "bbox": [{chance.uniform(0, 600):.2f}, '
            f'{chance.uniform(0, 400):.2f}, {chance.uniform(1, 60):.2f}, {chance.uniform(1, 60):.2f}], '
            f'"category_id": {chance.randint(1, 90)}, "id": {i}}}' for i in range(annotations)))
        file.write('], "categories": [')
        file.writelines(_separated(
            f'{{"supercategory": "thing", "id": {i}, "name": "thing {i}"}}' for i in range(1, 91)))
        file.write(']}')


def _separated(records: Iterator[str]) -> Iterator[str]:
    yield next(records)
    yield from (f', {record}' for record in records)


def ours(source: Path, target: Path, keep: set[int]) -> None:
    """The package's function."""
    from adadedup_mm.annotations.coco import rewrite_coco
    rewrite_coco(source, target, keep)


def with_json(source: Path, target: Path, keep: set[int]) -> None:
    """``json.loads`` and ``json.dumps``."""
    _load_filter_dump(json.loads, lambda content: json.dumps(content).encode(), source, target, keep)


def with_orjson(source: Path, target: Path, keep: set[int]) -> None:
    """``orjson.loads`` and ``orjson.dumps`` with the garbage collector paused."""
    import gc

    import orjson
    gc.disable()
    _load_filter_dump(orjson.loads, orjson.dumps, source, target, keep)


def _load_filter_dump(loads: Callable, dumps: Callable, source: Path, target: Path, keep: set[int]) -> None:
    from adadedup_mm.files import atomic_open
    content = loads(source.read_bytes())
    content['images'] = [image for image in content['images'] if image['id'] in keep]
    content['annotations'] = [record for record in content['annotations'] if record['image_id'] in keep]
    with atomic_open(target) as file:
        file.write(dumps(content))


def copy_file(source: Path, target: Path, keep: set[int]) -> None:
    """Copies the file as it is: the floor."""
    import shutil

    from adadedup_mm.files import atomic_open
    with open(source, 'rb') as original, atomic_open(target) as file:
        shutil.copyfileobj(original, file, 1 << 20)


METHODS: dict[str, Callable[[Path, Path, set[int]], None]] = {
    'ours': ours, 'json': with_json, 'orjson, gc paused': with_orjson, 'copy': copy_file}


def measure(name: str, source: Path, target: Path, images: int) -> None:
    """Runs one method in this process and prints what it took as JSON."""
    import adadedup_mm.annotations.coco  # noqa: F401  # imports are not what is measured
    keep = set(random.Random(1).sample(range(images), round(SHARE * images)))
    start, cpu = time.perf_counter(), time.process_time()
    METHODS[name](source, target, keep)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(seconds=seconds, cpu=cpu, megabytes=peak)))


def main() -> None:
    """Makes the file, runs all methods in turn, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='a file of a twentieth of the size')
    parser.add_argument('--rounds', type=int, default=3, help='runs of each method')
    parser.add_argument('--measure', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        name, source, target, images = args.measure
        measure(name, Path(source), Path(target), int(images))
        return

    scale = 20 if args.quick else 1
    images, annotations = IMAGES // scale, ANNOTATIONS // scale
    names = [name for name in METHODS if 'orjson' not in name or importlib.util.find_spec('orjson')]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'instances.json'
        make_file(source, images, annotations)
        size = source.stat().st_size / 1e6
        for _ in range(args.rounds):
            for name in names:
                target = Path(folder) / f'{name}.json'
                command = [sys.executable, __file__, '--measure', name, source, target, str(images)]
                results[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        # In a process of its own as well: this one's memory would count for the processes it starts.
        check = 'import json, sys; a, b = (json.load(open(path)) for path in sys.argv[1:]); sys.exit(a != b)'
        paths = [Path(folder) / f'{name}.json' for name in ('ours', 'json')]
        subprocess.run([sys.executable, '-c', check, *paths], check=True)

    print(f'{size:.0f} MB, {images} images, {annotations} annotations, {SHARE:.0%} of the images kept; equal results')
    print(f'{"method":20s} {"seconds":>8s} {"CPU s":>8s} {"peak MB":>8s} {"x ours":>8s} {"x ours, CPU":>12s}')
    median = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
              for name, runs in results.items()}
    for name, row in median.items():
        print(f'{name:20s} {row["seconds"]:8.2f} {row["cpu"]:8.2f} {row["megabytes"]:8.0f} '
              f'{row["seconds"] / median["ours"]["seconds"]:8.2f} {row["cpu"] / median["ours"]["cpu"]:12.2f}')


if __name__ == '__main__':
    main()
