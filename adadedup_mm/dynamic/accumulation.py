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
        if getattr(wrapper, '_max_counts', -1) < 0:
            continue
        wrapper._max_counts = iterations
        wrapper._remainder_counts = iterations % wrapper._accumulative_counts


def accumulated(runner: Any) -> dict[str, Any]:
    """What has accumulated since the last step.

    Returns:
        ``counts`` of the wrappers, and ``gradients`` by parameter name.
    """
    wrappers = _wrappers(runner.optim_wrapper)
    gradients: dict[str, Tensor] = {}
    if any(_is_between_steps(wrapper) for wrapper in wrappers):
        for name, parameter in runner.model.named_parameters():
            gradient = parameter.grad
            if gradient is not None:
                gradients[name] = gradient.detach().cpu()

    return dict(
        counts=[wrapper.inner_count for wrapper in wrappers],
        gradients=gradients,
    )


def _is_between_steps(wrapper: Any) -> bool:
    interval = getattr(wrapper, '_accumulative_counts', 1)
    return wrapper.inner_count % interval != 0


def restore_accumulated(runner: Any, saved: dict[str, Any]) -> None:
    """Goes on from what ``accumulated`` returned."""
    wrappers = _wrappers(runner.optim_wrapper)
    for wrapper, count in zip(wrappers, saved['counts'], strict=False):
        wrapper._inner_count = count
    gradients = saved['gradients']
    if not gradients:
        return
    parameters = dict(runner.model.named_parameters())
    for name, gradient in gradients.items():
        parameter = parameters.get(name)
        if parameter is not None:
            parameter.grad = gradient.to(parameter.device).clone()

    runner.logger.info(
        'dynamic pruning: the gradients accumulated before the checkpoint are restored'
    )


def _wrappers(optim_wrapper: Any) -> list[Any]:
    """The wrappers that count: one, or those of an OptimWrapperDict."""
    wrappers = [optim_wrapper]
    inner = getattr(optim_wrapper, 'optim_wrappers', None)
    if isinstance(inner, dict):
        wrappers = list(inner.values())
    return [wrapper for wrapper in wrappers if hasattr(wrapper, 'inner_count')]
