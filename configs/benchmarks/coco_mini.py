# A control: 140 images of COCO with 1,000 objects of its 80 classes, as a COCO folder; too few to learn from.
#   python tools/benchmark.py configs/benchmarks/coco_mini.py --cfg-options data.root=FOLDER --jobs 2
_base_ = './aerial_cars.py'
keep_ratios = [.5]
