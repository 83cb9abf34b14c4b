"""Making any detector's config the proxy of any dataset."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from ..base.errors import UserError
from ..datasets.sources import type_name
from ..images import Reader

# Parts of a detector whose num_classes are not the dataset's classes.
_OTHER_CLASSES = ('rpn_head', 'semantic_head', 'backbone', 'neck')
# Wrappers that repeat or mix samples; a proxy sees every sample of the user's set once per epoch.
_REPEATING = ('RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset')
_SCHEDULE_LENGTHS = {'begin', 'end', 'T_max', 'milestones', 'step_size'}


def proxy_config(config: Config, num_classes: int, epochs: int | None = None) -> Config:
    """A copy of a training config that trains its detector on other classes, for another time.

    Args:
        config: any MMDetection training config; its pipelines, optimiser and schedule are kept.
        num_classes: number of classes of the dataset; heads of another number are changed, except
            for 3D detectors.
        epochs: training epochs; the schedule is stretched to them. None keeps the config's.

    Raises:
        UserError: the config is no training config of a detector, or counts iterations where epochs
            are asked for.
    """
    for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not config.get(key):
            raise UserError(
                f"the proxy's config {config.filename or ''} has no {key!r}: name a detector's "
                'training config'
            )

    fitted = Config(copy.deepcopy(config._cfg_dict))
    # MMPretrain's configs have it beside the model; the Runner would put it there too.
    if config.get('data_preprocessor'):
        fitted.model.setdefault('data_preprocessor', fitted.data_preprocessor)
    # 3D heads have anchors, tasks and codes for each of their classes: one number does not fit them
    # to others.
    if not is_3d(config):
        set_classes(fitted.model, num_classes)
    if epochs is not None:
        _set_epochs(fitted, epochs)
    return fitted


def read_as_training(config: Config, reader: Reader) -> None:
    """Makes a 2D detector's pipelines load images as another training does, in place.

    Args:
        config: of a detector; loaders with the same settings as the reader stay as they are.
        reader: of the other training.
    """
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        _replace_loaders(config.get(name), reader)


def _replace_loaders(node: Any, reader: Reader) -> None:
    if isinstance(node, (list, tuple)):
        for value in node:
            _replace_loaders(value, reader)

    if not isinstance(node, dict):
        return
    if type_name(node) != 'LoadImageFromFile':
        for value in node.values():
            _replace_loaders(value, reader)
        return

    own = node.get('color_type', 'color'), node.get('imdecode_backend', 'cv2')
    if own != (reader.color_type, reader.backend):
        node.clear()
        node.update(
            type='LoadAsTraining',
            color_type=reader.color_type,
            backend=reader.backend,
        )


def set_classes(node: Any, count: int) -> None:
    """Changes ``num_classes`` of all heads in a detector's config, in place."""
    if isinstance(node, (list, tuple)):
        for part in node:
            set_classes(part, count)

    if not isinstance(node, dict):
        return
    if 'num_classes' in node:
        node['num_classes'] = count
    for key, part in node.items():
        if key not in _OTHER_CLASSES:
            set_classes(part, count)


def _set_epochs(config: Config, epochs: int) -> None:
    if 'max_epochs' not in config.train_cfg:
        raise UserError(
            "the proxy's config counts iterations, so that adadedup.proxy.epochs does not apply: "
            'set its train_cfg.max_iters instead'
        )

    old = config.train_cfg.max_epochs
    config.train_cfg.max_epochs = epochs
    schedulers: Any = config.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    for scheduler in schedulers:
        if scheduler.get('by_epoch', True):
            _stretch(scheduler, epochs, old)


def _stretch(scheduler: Any, epochs: int, old: int) -> None:
    """Makes a scheduler for ``old`` epochs one for ``epochs``, in place."""
    for key in _SCHEDULE_LENGTHS & scheduler.keys():
        value = scheduler[key]
        least = 0 if key == 'begin' else 1
        stretched = []
        for item in np.atleast_1d(value):
            length = round(item * epochs / old)
            stretched.append(max(length, least))
        scheduler[key] = stretched if np.ndim(value) else stretched[0]


def is_3d(config: Config) -> bool:
    """Whether a training config is one of a 3D detector, which sees frames rather than images."""
    return _has_step(config.train_dataloader.dataset, 'Pack3DDetInputs')


def is_classifier(config: Config) -> bool:
    """Whether a training config is one of MMPretrain's image classifiers."""
    loader: Any = config.get('train_dataloader') or {}
    if 'dataset' not in loader:
        return False
    return _has_step(loader['dataset'], 'PackInputs')


def _has_step(dataset: ConfigDict, name: str) -> bool:
    names = [type_name(step) for step in _steps(dataset)]
    return name in names


def training_dataset(config: Config, dataset: Mapping[str, Any]) -> ConfigDict:
    """The samples of ``dataset`` with the training pipeline and the wrappers of the proxy's config.

    Args:
        config: the proxy's config.
        dataset: config of the user's dataset; its own pipelines and repeating wrappers are dropped.
    """
    own: ConfigDict = config.train_dataloader.dataset
    return _with_leaf(own, dataset)


def _with_leaf(own: ConfigDict, dataset: Mapping[str, Any]) -> ConfigDict:
    if 'datasets' in own:
        return _with_leaf(own.datasets[0], dataset)
    if 'dataset' in own:
        wrapper = copy.deepcopy(own)
        wrapper.dataset = _with_leaf(own.dataset, dataset)
        return wrapper
    return _with_pipeline(dataset, own.pipeline)


def scoring_dataset(config: Config, dataset: Mapping[str, Any]) -> ConfigDict:
    """The samples of ``dataset`` as the proxy sees them in a test, but with annotations.

    The pipeline is the config's test pipeline, but loads and packs what its training pipeline does:
    test pipelines load annotations after resizing, if at all. 3D detectors filter objects as in
    training, and see frames without any.

    Raises:
        UserError: the config has no test pipeline.
    """
    loader = config.get('test_dataloader') or config.get('val_dataloader')
    if not loader:
        raise UserError(
            "the proxy's config has no 'test_dataloader': its pipeline tells how to prepare images "
            'without augmentation'
        )

    training = _steps(config.train_dataloader.dataset)
    testing = _plain_steps(_steps(loader.dataset))
    steps = [step for step in training if _is_named(step, 'Load')]
    steps += [step for step in training if _filters_objects(step)]
    steps += [step for step in testing if not _is_named(step, 'Load', 'Pack')]
    steps += [step for step in training if _is_named(step, 'Pack')]
    scoring = _with_pipeline(dataset, steps)
    if is_3d(config):
        _keep_empty(scoring)
    return scoring


def _is_named(step: Any, *beginnings: str) -> bool:
    """Whether the name of a step's type begins so."""
    return type_name(step).startswith(beginnings)


def _filters_objects(step: Any) -> bool:
    return _is_named(step, 'Object') and 'Filter' in type_name(step)


def _plain_steps(steps: Sequence[Any]) -> list[Any]:
    """The steps, with what is not random in it in place of mmdet3d's test-time augmentation."""
    plain: list[Any] = []
    for step in steps:
        if type_name(step) != 'MultiScaleFlipAug3D':
            plain.append(step)
            continue
        for inner in step.get('transforms', []):
            if not _is_named(inner, 'Random', 'GlobalRot'):
                plain.append(inner)
    return plain


def _keep_empty(dataset: ConfigDict) -> None:
    """Frames without objects are not to be replaced by others, in place."""
    if 'datasets' in dataset:
        for inner in dataset.datasets:
            _keep_empty(inner)
    elif 'dataset' in dataset:
        _keep_empty(dataset.dataset)
    if 'pipeline' in dataset:
        dataset.filter_empty_gt = False


def _steps(dataset: ConfigDict) -> list[Any]:
    """The steps of a dataset's pipeline and of the wrappers around it, the inner ones first."""
    if 'datasets' in dataset:
        return _steps(dataset.datasets[0])
    steps = []
    if 'dataset' in dataset:
        steps = _steps(dataset.dataset)
    return [*steps, *dataset.get('pipeline', [])]


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[Any]) -> ConfigDict:
    """A copy of a dataset's config whose inner datasets have ``pipeline``."""
    result = ConfigDict(copy.deepcopy(dataset))
    if 'datasets' in result:
        result.datasets = [_with_pipeline(inner, pipeline) for inner in result.datasets]
    elif 'dataset' in result:
        result.dataset = _with_pipeline(result.dataset, pipeline)
        if type_name(result) in _REPEATING:
            return result.dataset
    else:
        result.pipeline = copy.deepcopy(list(pipeline))

    return result
