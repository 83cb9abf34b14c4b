"""The ``adadedup`` dict of a config, checked and resolved."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ..base.checks import choose, finite, whole
from ..base.errors import UserError

# The strategy of a config that names none.
DEFAULT_STRATEGY = 'adadedup'
# Strategies that go by ``feedback.signal``.
_ASK_FOR_FEEDBACK = (DEFAULT_STRATEGY, 'auto')


@dataclasses.dataclass(frozen=True)
class ProxyOptions:
    """The proxy detector.

    Attributes:
        config: mmdet or mmdet3d config file of the detector; the base config names the default.
        checkpoint: weights to use instead of training.
        epochs: training epochs; None takes them from the config.
        max_loss_samples: how many samples get a loss at most, drawn evenly from both parts; None
            means all.
        held_out: share of the initial set that stays out of the proxy's training; needed by
            ``gap='held_out'``.
        distributed: whether all processes train it together (DDP), each on a part of the config's
            batch. That is faster, but the weights, and with them the selection, then depend on the
            number of processes.
    """

    config: str = 'adadedup_mm::proxy/faster_rcnn_r18_small.py'
    checkpoint: str | None = None
    epochs: int | None = None
    max_loss_samples: int | None = None
    held_out: float = 0.0
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class FeedbackOptions:
    """What labels and proxy say about redundancy (see ``density.layout`` and ``feedback``).

    Attributes:
        layout: share of the label layout in the density scores of ``adadedup``; the rest is the
            images'. 0 is the paper's plain form.
        signal: what says how informative a sample is: ``'probe'`` (linear heads on frozen maps, in
            seconds; the default unless the ``proxy`` dict says more than our base configs),
            ``'proxy'`` (a detector that is trained for it, as the paper has it), or
            ``'both'``, weighted by their precision: a proxy is then trained only where the probe
            can tell clusters apart. What the probe says moves thresholds only where that helps in
            cross-validation.
        gap: ``'mean'``, ``'paired'`` or ``'held_out'``.
        beta: adaptation strength, in units of the spread of the density scores; 0 needs no proxy.
        alpha_plus: factor of positive gaps (informative clusters, which keep more).
        alpha_minus: factor of negative gaps (redundant clusters, which lose more).
        shrink: whether noisy gaps shrink towards the mean; False is the paper's plain form.
        initial_ratio: keep ratio of the initial set; None takes the final one.
    """

    layout: float = 0.3
    signal: str = 'probe'
    gap: str = 'paired'
    beta: float = 0.5
    alpha_plus: float = 1.0
    alpha_minus: float = 1.0
    shrink: bool = True
    initial_ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
    """The probe: linear heads on the maps of a frozen network (see ``adadedup_mm.probe``).

    Attributes:
        backbone: dict built from ``BACKBONES``.
        size: of a picture's longer side in the network's input, in pixels; ignored by networks of
            a fixed size.
    """

    backbone: dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(type='OfflineBackbone')
    )
    size: int = 320


@dataclasses.dataclass(frozen=True)
class GuardOptions:
    """What a selection must never do.

    Attributes:
        min_class_ratio: every class keeps at least this share of ``keep_ratio`` of its samples, and
            at least one; 0 switches the guard off.
        conflicts: whether of copies whose labels contradict each other the one that is rather right
            stays, where the strategy goes by density scores.
    """

    min_class_ratio: float = 0.5
    conflicts: bool = True


@dataclasses.dataclass(frozen=True)
class Options:
    """Everything that decides a selection, besides the data.

    Attributes:
        keep_ratio: kept / all samples, in (0, 1].
        strategy: a name in ``STRATEGIES``, or a dict with the name as ``type`` and its arguments.
        seed: of every random choice.
        views: cameras that the features are taken from: ``'front'``, ``'all'`` or a list of names.
        on_bad_image: what to do with unreadable images: ``'keep'``, ``'drop'`` or ``'error'``.
        embedder: dict built from ``EMBEDDERS``.
        clusterer: dict built from ``CLUSTERERS``.
        density: dict built from ``DENSITIES``.
        proxy: see ``ProxyOptions``.
        feedback: see ``FeedbackOptions``.
        probe: see ``ProbeOptions``.
        guards: see ``GuardOptions``.
        group_by: ``'scene'`` keeps or drops whole scenes, by the share of their samples that the
            strategy chose; the number of kept samples then comes as near to the budget as whole
            scenes allow.
        min_gap: how many frames of a scene are to lie between two that are kept, as far as the
            budget allows.
        temporal: what becomes of ``prev`` and ``next`` in infos of frames: ``'relink'`` joins them
            over the pruned frames, ``'keep'`` leaves them.
        trust_pickles: whether pickled annotation files may hold more than plain data, which can run
            code.
        shared_stages: a folder where runs on the same data keep finished stages for each other;
            equal stages are then computed once. ``tools/benchmark.py`` sets it.
        work_dir: where training with ``AdaDeDupRunner`` keeps its pruning run; None means
            ``adadedup/`` in the training's work dir. ``tools/prune.py --work-dir`` goes first.
    """

    keep_ratio: float = 0.8
    strategy: dict[str, Any] | str = DEFAULT_STRATEGY
    seed: int = 0
    views: str | list[str] = 'front'
    on_bad_image: str = 'keep'
    embedder: dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(type='OpenCLIPEmbedder')
    )
    clusterer: dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(type='SphericalKMeans')
    )
    density: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(type='KCenter'))
    proxy: ProxyOptions = dataclasses.field(default_factory=ProxyOptions)
    feedback: FeedbackOptions = dataclasses.field(default_factory=FeedbackOptions)
    probe: ProbeOptions = dataclasses.field(default_factory=ProbeOptions)
    guards: GuardOptions = dataclasses.field(default_factory=GuardOptions)
    group_by: str | None = None
    min_gap: int = 0
    temporal: str = 'relink'
    trust_pickles: bool = False
    work_dir: str | None = None
    shared_stages: str | None = None

    @property
    def strategy_name(self) -> str:
        return self.strategy if isinstance(self.strategy, str) else self.strategy['type']

    def identity(self) -> dict[str, Any]:
        """The options that can change the result as a plain dict, for hashing and the manifest."""
        values = dataclasses.asdict(self)
        for name in ('work_dir', 'shared_stages'):
            values.pop(name)
        if not self.proxy.distributed:
            values['proxy'].pop('distributed')
        # What version 0.1 did not know is left out where it changes nothing, so that its finished
        # runs still are those of their options.
        if self.guards.conflicts:
            values['guards'].pop('conflicts')
        if self.probe == ProbeOptions():
            values.pop('probe')
        asks_probe = self.feedback.signal != 'proxy' and self.feedback.beta > 0
        if not asks_probe or self.strategy_name not in _ASK_FOR_FEEDBACK:
            values['feedback'].pop('signal')
        return values


def resolve_options(
    config: Mapping[str, Any], keep_ratio: float | None = None, strategy: str | None = None
) -> Options:
    """Reads the ``adadedup`` dict of a config.

    Args:
        config: the whole config.
        keep_ratio: overrides the dict's.
        strategy: overrides the dict's; the arguments there stay if they are those of this strategy,
            or of ``adadedup``, which takes none.

    Raises:
        UserError: the dict is missing, has unknown keys, or a value is out of range.
    """
    if not isinstance(config.get('adadedup'), Mapping):
        raise UserError(
            "the config has no 'adadedup' dict: add 'adadedup_mm::_base_/adadedup.py' to its "
            '_base_ list'
        )

    raw = _named_types(plain(config['adadedup']))
    if keep_ratio is not None:
        raw['keep_ratio'] = keep_ratio

    given = raw.get('strategy')
    if strategy is not None and not (isinstance(given, dict) and given.get('type') == strategy):
        extra = isinstance(given, dict) and given.get('type') == DEFAULT_STRATEGY and len(given) > 1
        raw['strategy'] = dict(given, type=strategy) if extra else strategy

    values = dict(raw)
    for name, kind in (
        ('proxy', ProxyOptions),
        ('feedback', FeedbackOptions),
        ('probe', ProbeOptions),
        ('guards', GuardOptions),
    ):
        raw[name] = _construct(kind, raw.get(name, {}), f'adadedup.{name}')

    feedback = values.get('feedback', {})
    if _names_a_proxy(raw['proxy']) and 'signal' not in feedback:
        raw['feedback'] = dataclasses.replace(raw['feedback'], signal='proxy')
    options = _construct(Options, raw, 'adadedup')
    _check(options)
    try:
        _require_json(values, 'adadedup')
        json.dumps(options.identity(), ensure_ascii=False).encode()
    # Half of a surrogate pair, which no file can hold, or a list that holds itself.
    except (ValueError, RecursionError) as error:
        raise UserError(f'the adadedup dict holds what cannot be written: {error}') from error

    return options


def _names_a_proxy(proxy: ProxyOptions) -> bool:
    """Whether a config says more of the proxy than our base configs do: it is to be asked then."""
    usual = ProxyOptions(config=proxy.config)
    ours = isinstance(proxy.config, str) and proxy.config.startswith('adadedup_mm::proxy/')
    return proxy != usual or not ours


def _named_types(value: Any) -> Any:
    """The same with names in place of the classes that pure-Python configs give as ``type``."""
    if isinstance(value, dict):
        named = {key: _named_types(item) for key, item in value.items()}
        return (
            named | dict(type=value['type'].__name__)
            if isinstance(value.get('type'), type)
            else named
        )
    return [_named_types(item) for item in value] if isinstance(value, list) else value


def _require_json(value: Any, where: str) -> None:
    """Raises UserError for what would not be read as it is from the manifest again."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(f'{where} has the key {key!r}, but keys must be text')
            _require_json(item, f'{where}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_json(item, f'{where}.{index}')
    elif not isinstance(value, (str, int, float, type(None))) or value != value:
        raise UserError(
            f'{where} is {value!r}, but must be a text, a number, True, False, None, a list or a '
            'dict'
        )


def plain(value: Any) -> Any:
    """A copy without mmengine's classes and ``_scope_`` marks: dicts, lists and scalars only."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _construct(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise UserError(f'{where} must be a dict, but is {raw!r}')
    names = {field.name for field in dataclasses.fields(kind)}
    for key in raw:
        choose(key, names, f'a key of {where}')
    return kind(**raw)


def _check(options: Options) -> None:
    finite(options.keep_ratio, 'keep_ratio', 0, 1, above=True)
    whole(options.seed, 'adadedup.seed', 0)
    choose(options.on_bad_image, ('keep', 'drop', 'error'), 'adadedup.on_bad_image')
    choose(options.temporal, ('relink', 'keep'), 'adadedup.temporal')
    if options.group_by is not None:
        choose(options.group_by, ('scene',), 'adadedup.group_by (unless it is None)')

    whole(options.min_gap, 'adadedup.min_gap', 0)
    if options.group_by and options.min_gap:
        raise UserError(
            f'adadedup.group_by={options.group_by!r} keeps whole scenes, adadedup.min_gap='
            f'{options.min_gap} thins them out: set one of the two'
        )
    if not isinstance(options.trust_pickles, bool):
        raise UserError(
            f'adadedup.trust_pickles is {options.trust_pickles!r}, but must be True or False'
        )

    views = options.views
    if isinstance(views, str):
        choose(views, ('front', 'all'), 'adadedup.views (unless it is a list of camera names)')
    elif (
        not isinstance(views, list) or not views or not all(isinstance(view, str) for view in views)
    ):
        raise UserError(
            f"adadedup.views is {views!r}, but must be 'front', 'all' or a list of camera names"
        )

    for name in ('embedder', 'clusterer', 'density'):
        _check_component(getattr(options, name), f'adadedup.{name}')
    _check_component(options.probe.backbone, 'adadedup.probe.backbone')
    whole(options.probe.size, 'adadedup.probe.size', 64)

    if 'near_duplicate' in options.embedder:
        finite(options.embedder['near_duplicate'], 'adadedup.embedder.near_duplicate', -1, 1)

    for name in ('work_dir', 'shared_stages'):
        if not isinstance(getattr(options, name), (str, type(None))):
            raise UserError(
                f'adadedup.{name} is {getattr(options, name)!r}, but must be a path or None'
            )

    if not isinstance(options.strategy, str) and not (
        isinstance(options.strategy, dict) and isinstance(options.strategy.get('type'), str)
    ):
        raise UserError(
            f"adadedup.strategy is {options.strategy!r}, but must be a name or a dict with a 'type'"
        )

    _check_proxy(options.proxy)
    _check_feedback(options.feedback, options.proxy)
    finite(options.guards.min_class_ratio, 'adadedup.guards.min_class_ratio', 0, 1)
    if not isinstance(options.guards.conflicts, bool):
        raise UserError(
            f'adadedup.guards.conflicts is {options.guards.conflicts!r}, but must be True or False'
        )


def _check_component(value: Any, where: str) -> None:
    if not isinstance(value, dict) or not isinstance(value.get('type'), str):
        raise UserError(f"{where} is {value!r}, but must be a dict with a 'type'")


def _check_proxy(proxy: ProxyOptions) -> None:
    if not isinstance(proxy.config, str):
        raise UserError(
            f'adadedup.proxy.config is {proxy.config!r}, but must be the path of a config file'
        )
    if proxy.checkpoint is not None and not isinstance(proxy.checkpoint, str):
        raise UserError(
            f'adadedup.proxy.checkpoint is {proxy.checkpoint!r}, but must be a path or None'
        )

    for name in ('epochs', 'max_loss_samples'):
        if getattr(proxy, name) is not None:
            whole(getattr(proxy, name), f'adadedup.proxy.{name}', 1)

    finite(proxy.held_out, 'adadedup.proxy.held_out', 0, 0.9)
    if not isinstance(proxy.distributed, bool):
        raise UserError(
            f'adadedup.proxy.distributed is {proxy.distributed!r}, but must be True or False'
        )


def _check_feedback(feedback: FeedbackOptions, proxy: ProxyOptions) -> None:
    choose(feedback.signal, ('probe', 'proxy', 'both'), 'adadedup.feedback.signal')
    choose(feedback.gap, ('mean', 'paired', 'held_out'), 'adadedup.feedback.gap')
    for name in ('beta', 'alpha_plus', 'alpha_minus'):
        finite(getattr(feedback, name), f'adadedup.feedback.{name}', 0)

    finite(feedback.layout, 'adadedup.feedback.layout', 0, 0.9)
    if not isinstance(feedback.shrink, bool):
        raise UserError(
            f'adadedup.feedback.shrink is {feedback.shrink!r}, but must be True or False'
        )

    if feedback.initial_ratio is not None:
        finite(feedback.initial_ratio, 'adadedup.feedback.initial_ratio', 0, 1, above=True)
    if feedback.gap == 'held_out' and not proxy.held_out:
        raise UserError(
            "adadedup.feedback.gap='held_out' needs adadedup.proxy.held_out above 0, for example "
            '0.2'
        )
