# The setting of arXiv 2111.12621, where CIFAR-10 and CIFAR-100 are in data/; each training wants a
# GPU:   python tools/benchmark.py configs/benchmarks/cifar_dynamic.py
#   python benchmarks/dynamic_tables.py work_dirs/cifar_dynamic docs/DYNAMIC.md
_base = 'adadedup_mm::_base_/dynamic_'
_page = 'https://www.cs.toronto.edu/~kriz/cifar.html'
_text = f'unpack cifar-10-python.tar.gz and cifar-100-python.tar.gz ({_page}) there'
data = dict(
    type='files',
    text=_text,
    paths=['data/cifar10/cifar-10-batches-py/data_batch_1', 'data/cifar100/cifar-100-python/train'],
)
models = dict(
    cifar10='adadedup_mm::dynamic/resnet18_cifar10.py',
    cifar100='adadedup_mm::dynamic/resnet18_cifar100.py',
)
variants = dict(
    full=dict(),
    random=dict(_base_=f'{_base}random.py'),
    epsilon_greedy=dict(_base_=f'{_base}epsilon_greedy.py'),
    ucb=dict(_base_=f'{_base}ucb.py'),
    static_random=dict(adadedup=dict(strategy='random')),
    static_el2n=dict(adadedup=dict(strategy='el2n')),
    static_grand=dict(adadedup=dict(strategy='grand')),
    static_forgetting=dict(adadedup=dict(strategy='forgetting')),
)
keep_ratios = [0.7, 0.5, 0.3]
seeds = [0, 1, 2, 3, 4]
metric = 'accuracy/top1'
compare_with = 'full'
