"""The trainings of a benchmark, each an ordinary training config in a work dir of its own.

A job of the probe is such a config, too: of it only the data and the pruning are used.
"""

import copy
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ..base.checks import choose
from ..base.errors import UserError
from ..base.files import atomic_open, sha256_value
from ..detectors.config import set_classes
from ..registry import STRATEGIES, bind
from ..settings.config_text import config_text
from ..settings.load import load_config
from ..settings.options import Options, plain, resolve_options
from .config import Benchmark
from .data import has_worlds, in_world

Load = Callable[[str], dict[str, Any]]
_NEVER = 10**9
# Top-level keys that tools/train.py or the Runner take, whether the model's config has them or not.
_KNOWN = inspect.signature(Runner).parameters.keys() | {
    'adadedup',
    'auto_scale_lr',
    'custom_imports',
    'dynamic',
    'model_wrapper_cfg',
    'runner_type',
}


@dataclass(frozen=True)
class Job:
    """One training, or one selection that the probe measures.

    Attributes:
        model: name of the model.
        variant: name of the variant.
        keep_ratio: what the variant was told to keep; None for variants that cannot be told.
        seed: of pruning and training.
        config: the training config.
        settings: all that decides the result, with the defaults of ``adadedup`` and without paths
            of this benchmark.
        key: hash of the settings.
        work_dir: of the benchmark.
        judge: options under which the probe measures it; None where it is trained.
    """

    model: str
    variant: str
    keep_ratio: float | None
    seed: int
    config: Config
    settings: dict[str, Any]
    key: str
    work_dir: Path
    judge: Options | None = None

    @property
    def is_probe(self) -> bool:
        """Whether the probe measures it."""
        return self.judge is not None

    @property
    def name(self) -> str:
        """In words, for people."""
        parts = [self.model, self.variant]
        if self.keep_ratio is not None:
            parts.append(f'{self.keep_ratio:.0%}')
        parts.append(f'seed {self.seed}')
        return ' '.join(parts)

    @property
    def folder(self) -> Path:
        """The training's work dir, another one for every config."""
        name = folder_name(vars(self))
        return self.work_dir / 'jobs' / name

    def write_config(self) -> Path:
        """Writes the config.

        It does not go into the training's work dir, where mmengine writes the one after pruning.
        """
        path = self.work_dir / 'configs' / f'{self.folder.name}.py'
        with atomic_open(path, 'w') as file:
            file.write(config_text(self.config))
        return path


def folder_name(job: Mapping[str, Any]) -> str:
    """What a training's work dir is called, from its model, variant, keep ratio, seed and key."""
    parts = [job['model'], job['variant']]
    if job['keep_ratio'] is not None:
        parts.append(f'{job["keep_ratio"]:g}')
    parts.append(f'seed{job["seed"]}')
    parts.append(job['key'][:8])
    return '-'.join(parts)


def make_jobs(benchmark: Benchmark, settings: Mapping[str, Any], work_dir: Path) -> list[Job]:
    """All trainings; those of one seed before the next seed's, so that tables fill up evenly.

    Args:
        benchmark: what to compare.
        settings: what the preparation of the data adds to every training config; ``num_classes``
            goes to all heads.
        work_dir: of the benchmark.

    Raises:
        UserError: a config cannot be read, or its settings do not fit.
    """

    @functools.cache
    def load(path: str) -> dict[str, Any]:
        return load_config(path)._cfg_dict.to_dict()

    configs = {}
    judges = {model: _judge(benchmark, model, load) for model in benchmark.models}
    for model in benchmark.models:
        for variant in benchmark.variants:
            config = _training_config(benchmark, settings, model, variant, load)
            configs[model, variant] = config

    jobs = []
    for seed in benchmark.seeds:
        # One ratio after the other: variants differ in their stages, ratios share them, and of two
        # trainings side by side one would wait for the other's.
        for step, ratio in enumerate(benchmark.keep_ratios):
            for (model, variant), config in configs.items():
                takes_ratio = ratio_owner(config) is not None
                if not takes_ratio and step > 0:
                    continue
                jobs.append(
                    _job(
                        model,
                        variant,
                        ratio if takes_ratio else None,
                        seed,
                        base=config,
                        data=benchmark.data,
                        load=load,
                        work_dir=work_dir,
                        judge=judges[model],
                    )
                )

    return jobs


def check_weights(jobs: Sequence[Job]) -> None:
    """Raises UserError if a file of weights that a training starts from is missing."""
    for job in jobs:
        weights = job.config.get('load_from')
        if weights and not job.is_probe and '://' not in weights and not os.path.exists(weights):
            raise UserError(
                f'{weights} is missing, which {job.model} starts from (load_from): '
                "put the weights there; the model's config says where they come from"
            )


def trained(jobs: Sequence[Job]) -> list[Job]:
    """Those that are trainings."""
    return [job for job in jobs if not job.is_probe]


def ratio_owner(config: Mapping[str, Any]) -> str | None:
    """The dict of a training config that takes the keep ratio.

    Returns:
        ``'adadedup'``, ``'dynamic'`` or None.
    """
    if 'adadedup' in config:
        return 'adadedup'
    dynamic = config.get('dynamic') or {}
    return 'dynamic' if 'keep_ratio' in dynamic else None


def _training_config(
    benchmark: Benchmark, settings: Mapping[str, Any], model: str, variant: str, load: Load
) -> Config:
    """The model's config with everything merged into it, but no keep ratio and seed."""
    where = f'models.{model} with variants.{variant}'
    wanted = benchmark.variants[variant]
    bases = [dict(_base_=benchmark.pruning_base)] if 'adadedup' in wanted else []
    settings = dict(settings)
    num_classes = settings.pop('num_classes', None)
    config = Config()
    base = benchmark.models[model]
    if isinstance(base, dict) and benchmark.is_probe(model):
        base = {key: value for key, value in base.items() if key not in ('type', 'probe')}
    try:
        _merge(config, [base, settings, benchmark.common], load)
        if {'adadedup', 'dynamic'} & config.keys():
            raise UserError(
                f'models.{model} prunes by itself: name a config without the dicts '
                'adadedup and dynamic, which are for the variants'
            )

        _merge(config, [*bases, dict(_base_=wanted.get('_base_', []))], load)
        own = {key: value for key, value in wanted.items() if key != '_base_'}
        known = config.keys() | _KNOWN
        for key in own.keys() - _KNOWN:
            first_part = key.partition('.')[0]
            choose(first_part, known, f'a key of variants.{variant}')

        _merge(config, [own], load)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f'{where}: {type(error).__name__}: {error}') from error

    if benchmark.is_probe(model) and 'dynamic' in config:
        raise UserError(
            f'{where}: the probe trains nothing, so that nothing can be pruned meanwhile: '
            'leave the variant out, or name a training config as the model'
        )
    if not config.get('train_cfg') or not config.get('val_dataloader'):
        raise UserError(
            f'{where} is no config that trains and evaluates: '
            'train_cfg or val_dataloader is missing'
        )

    _check_kinds(config, where)
    _evaluate_once(config)
    if num_classes is not None:
        set_classes(config.model, num_classes)
    if 'adadedup' in config:
        options = resolve_options(config)
        bind(STRATEGIES, options.strategy, f'{where}: adadedup.strategy')

    return config


def _judge(benchmark: Benchmark, model: str, load: Load) -> Options | None:
    """What all variants of a model of the probe are measured with: nothing that a variant sets."""
    part = benchmark.models[model]
    if not isinstance(part, dict) or not benchmark.is_probe(model):
        return None
    config = Config()
    try:
        own = dict(adadedup=dict(probe=part.get('probe', {})))
        _merge(config, [benchmark.pruning_base, own], load)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f'models.{model}.probe: {type(error).__name__}: {error}') from error
    return resolve_options(config)


def _merge(config: Config, parts: Sequence[Any], load: Load) -> None:
    """Merges config files and dicts one after the other.

    Files that a dict has as ``_base_`` come before it.
    """
    for part in parts:
        content = load(part) if isinstance(part, str) else part
        # Merging takes '_delete_' out of the dicts that it is given.
        settings = copy.deepcopy(dict(content))
        bases = settings.pop('_base_', [])
        if isinstance(bases, str):
            bases = [bases]
        _merge(config, bases, load)
        config.merge_from_dict(settings)


def _check_kinds(config: Config, where: str) -> None:
    """Raises UserError where a setting that every training gets a value in is no dict or list."""
    for key, kinds in (
        ('train_cfg', dict),
        ('default_hooks', dict),
        ('default_hooks.checkpoint', dict),
        ('custom_hooks', (list, tuple)),
        ('randomness', dict),
    ):
        value: Any = config
        for part in key.split('.'):
            value = (value or {}).get(part)
        if value is not None and not isinstance(value, kinds):
            wanted = 'dict' if kinds is dict else 'list'
            raise UserError(f'{where}: {key} is {value!r}, but must be a {wanted}')


def _evaluate_once(config: Config) -> None:
    """Evaluation at the end only, and two checkpoints.

    The older one is complete while the newer one is written.
    """
    config.train_cfg.val_interval = _NEVER
    if config.train_cfg.get('dynamic_intervals'):
        config.train_cfg.dynamic_intervals = None
    checkpoint = (config.get('default_hooks') or {}).get('checkpoint')
    if checkpoint:
        checkpoint.max_keep_ckpts = 2
        checkpoint.pop('save_best', None)
    hooks = config.get('custom_hooks') or []
    config.custom_hooks = [*hooks, dict(type='adadedup_mm.benchmark.BenchmarkHook')]


def _job(
    model: str,
    variant: str,
    ratio: float | None,
    seed: int,
    base: Config,
    data: dict[str, Any],
    load: Load,
    work_dir: Path,
    judge: Options | None,
) -> Job:
    config = _in_world_of(seed, base, data)
    config.randomness = dict(config.get('randomness') or {}, seed=seed)
    if 'adadedup' in config:
        config.adadedup.seed = seed
    owner = ratio_owner(config)
    if owner:
        config[owner].keep_ratio = ratio
    settings = dict(plain(config.to_dict()), data=data)
    if 'adadedup' in config:
        options = resolve_options(config)
        settings['adadedup'] = options.identity()
        settings['proxy'] = plain(load(options.proxy.config))
        config.adadedup.shared_stages = str(work_dir / 'stages')
    if judge:
        settings['judge'] = judge.identity()

    return Job(
        model=model,
        variant=variant,
        keep_ratio=ratio,
        seed=seed,
        config=config,
        settings=settings,
        key=sha256_value(settings),
        work_dir=work_dir,
        judge=judge,
    )


def _in_world_of(seed: int, base: Config, data: dict[str, Any]) -> Config:
    """A copy of a config whose data are those of a seed, if each seed has its own."""
    if not has_worlds(data):
        return copy.deepcopy(base)
    before = base.to_dict()
    config = in_world(before, data, seed)
    if config == before:
        raise UserError(
            f'no path of the training configs lies below data.root {data["root"]}, so that all '
            'seeds would have the same data: set data_root and ann_file in common'
        )
    return Config(config)
