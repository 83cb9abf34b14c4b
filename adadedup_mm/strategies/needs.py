"""What strategies say of themselves: what they need and what they will cost."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..registry import STRATEGIES, find

if TYPE_CHECKING:
    from ..selection import Selection
    from .run import Run


@dataclass(frozen=True)
class Needs:
    """What a strategy does for one keep ratio.

    Attributes:
        features: whether it looks at the images' features.
        by_density: whether one threshold over the density scores decides, or begins the decision.
        layout: share of the label layout in these scores.
        trained: images that proxies are trained on, every epoch counted.
        scored: images that proxies are asked about.
        probed: pictures that the probe looks at.
        trainings: how many of them can run at the same time.
        together: whether all processes can do a training together (``proxy.distributed``).
    """

    features: bool = True
    by_density: bool = False
    layout: float = 0.0
    trained: int = 0
    scored: int = 0
    probed: int = 0
    trainings: int = 1
    together: bool = False


class Strategy(Protocol):
    """What a function registered in ``STRATEGIES`` must be.

    Its other arguments are the options beside ``type``. With ``says`` it also tells what it needs;
    of one that does not, nothing is assumed but that it looks at features.
    """

    def __call__(self, run: 'Run', **arguments: Any) -> 'Selection':
        """Chooses samples.

        Args:
            run: the samples, the options, and the stages that tell more about them.
            **arguments: of the strategy's own.

        Returns:
            Which samples stay; as many as the budget says, as far as there are usable ones.
        """


Function = TypeVar('Function', bound=Callable[..., Any])
# From the run, the keep ratio and the strategy's own arguments.
SaysNeeds = Callable[..., Needs]


def says(needs: SaysNeeds, competes: bool = False) -> Callable[[Function], Function]:
    """A decorator for strategies: ``needs`` tells what they will do, before they do it.

    Args:
        needs: called with the run, the keep ratio and the strategy's arguments by name.
        competes: whether the strategy ``auto`` considers it by itself; it should be quick.

    Example:
        >>> @STRATEGIES.register_module()
        ... @says(lambda run, keep_ratio: Needs(features=False))
        ... def every_other(run):
        ...     return Selection.without_features(np.arange(len(run.pool)) % 2 == 0)
    """

    def attach(strategy: Function) -> Function:
        strategy.needs = needs  # type: ignore[attr-defined]
        strategy.competes = competes  # type: ignore[attr-defined]
        return strategy

    return attach


def needs_of(run: 'Run', keep_ratio: float) -> Needs:
    """What a run's strategy will do.

    Args:
        run: the run.
        keep_ratio: in (0, 1], which need not be the run's.

    Raises:
        UserError: an argument of the strategy is out of range.
    """
    strategy = find(STRATEGIES, run.options.strategy_name, 'adadedup.strategy')
    says_needs = getattr(strategy, 'needs', None)
    if says_needs is None:
        return Needs()
    return says_needs(run, keep_ratio, **_arguments(run, strategy))


def _arguments(run: 'Run', strategy: Callable[..., Any]) -> dict[str, Any]:
    """The strategy's arguments besides the run, defaults included."""
    parameters = inspect.signature(strategy).parameters.values()
    arguments = {parameter.name: parameter.default for parameter in parameters}
    if isinstance(run.options.strategy, dict):
        arguments |= run.options.strategy

    run_name = next(iter(parameters)).name
    for name in (run_name, 'type'):
        arguments.pop(name, None)
    return arguments
