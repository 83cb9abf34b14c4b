# Dynamic pruning of a Faster R-CNN on MiniDrive at 50 %:
#   python tools/benchmark.py configs/benchmarks/minidrive_dynamic.py
#   python benchmarks/dynamic_tables.py work_dirs/minidrive_dynamic docs/DYNAMIC.md
_base = 'adadedup_mm::_base_/dynamic_'
data = dict(type='minidrive', root='data/minidrive', scenes=24, frames=20)
models = dict(faster_rcnn='adadedup_mm::minidrive/faster_rcnn_lite0_minidrive.py')
variants = dict(
    full=dict(),
    random=dict(_base_=f'{_base}random.py', dynamic=dict(period=2)),
    epsilon_greedy=dict(_base_=f'{_base}epsilon_greedy.py', dynamic=dict(period=2)),
    ucb=dict(_base_=f'{_base}ucb.py', dynamic=dict(period=2)),
    infobatch=dict(_base_=f'{_base}infobatch.py'),
    seta=dict(_base_=f'{_base}seta.py'),
)
keep_ratios = [0.5]
seeds = [0, 1, 2]
metric = 'coco/bbox_mAP'
compare_with = 'full'
