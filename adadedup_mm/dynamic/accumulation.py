"""Gradients that an OptimWrapper accumulates over batches, while epochs change their length."""

from typing import Any

from torch import Tensor


def expect_iterations(optim_wrapper: Any, iterations: int) -> None:
    """Tells an OptimWrapper after how many iterations the training ends: it steps in the last one.

    Wrappers that do not know the length of the training, such as those in an OptimWrapperDict, are
    left as they are.

    Args:
        optim_wrapper: of the Runner.
        iterations: of the whole training.
    """
    for wrapper in _wrappers(optim_wrapper):
        if getattr(wrapper, '_max_counts', -1) >= 0:
            wrapper._max_counts = iterations
            wrapper._remainder_counts = iterations % wrapper._accumulative_counts


def accumulated(runner: Any) -> dict[str, Any]:
    """What has accumulated since the last step.

    Returns:
        ``counts`` of the wrappers, and ``gradients`` by parameter name.
    """
    wrappers = _wrappers(runner.optim_wrapper)
    counts = [wrapper.inner_count for wrapper in wrappers]
    intervals = [getattr(wrapper, '_accumulative_counts', 1) for wrapper in wrappers]
    between = any(count % interval for count, interval in zip(counts, intervals, strict=True))
    gradients: dict[str, Tensor] = {}
    for name, parameter in runner.model.named_parameters():
        if between and parameter.grad is not None:
            gradients[name] = parameter.grad.detach().cpu()
    return dict(counts=counts, gradients=gradients)


def restore_accumulated(runner: Any, saved: dict[str, Any]) -> None:
    """Goes on from what ``accumulated`` returned."""
    for wrapper, count in zip(_wrappers(runner.optim_wrapper), saved['counts'], strict=False):
        wrapper._inner_count = count
    parameters = dict(runner.model.named_parameters())
    for name, gradient in saved['gradients'].items():
        if name in parameters:
            parameters[name].grad = gradient.to(parameters[name].device).clone()
    if saved['gradients']:
        runner.logger.info(
            'dynamic pruning: the gradients accumulated before the checkpoint are restored'
        )


def _wrappers(optim_wrapper: Any) -> list[Any]:
    """The wrappers that count: one, or those of an OptimWrapperDict."""
    inner = getattr(optim_wrapper, 'optim_wrappers', None)
    wrappers = list(inner.values()) if isinstance(inner, dict) else [optim_wrapper]
    return [wrapper for wrapper in wrappers if hasattr(wrapper, 'inner_count')]
