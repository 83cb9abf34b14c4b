"""The loss of every sample out of an ordinary training step, and weights on them.

Three modes, from the cheapest to the most general:

- ``element``: a classifier's criterion yields B elements, one per sample.
- ``batch``: the elements of the criteria of heads whose code is known are attributed to the images
  that they come from. A sample's loss is B times its share of the batch loss.
- ``image``: a sample's loss is what it would be if its batch held no other. What comes after the
  dense head is done image by image for that, beside the plain step.

What is trained on is the loss of plain training, to the last bit, unless a sample has a weight; the
samples' losses are found beside it, without a trace. In the first two modes the criteria are asked
for their elements, which are scaled so that they add up to what the criterion returned, however it
normalises. In the first step it is found out whether that is possible; where it is not, the step is
taken again in the next mode.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..base.checks import choose
from ..base.errors import UserError
from ..detectors.by_image import forward_losses_per_image, head_losses_per_image
from ..detectors.criteria import Criterion, copied, kept_random_states
from ..detectors.heads import (
    Owners,
    equal_runs,
    find_criteria,
    find_heads,
    is_detector,
    known_elements,
    no_criteria,
    no_only_head,
    not_decomposable,
    not_splittable,
    only_head,
    step_name,
)
from ..detectors.isolation import ModuleMemory, random_states, set_random_states
from ..detectors.losses import loss_components

MODES = ('auto', 'element', 'batch', 'image')
_RANDOM = 'policy random, which needs no losses'
_LOSSES = "its samples' losses"


class SampleLosses:
    """Stands between a model and its criteria in training steps, and leaves it as it was.

    Args:
        model: what the Runner trains, or a distributed wrapper of it.
        mode: ``'element'``, ``'batch'``, ``'image'``, or ``'auto'``: the first of them that fits
            the model.

    Attributes:
        mode: the one in use. The first step may show that it does not fit, and take the next one.

    Raises:
        UserError: the model does not fit the mode.
    """

    def __init__(self, model: nn.Module, mode: str = 'auto') -> None:
        choose(mode, MODES, 'dynamic.loss')
        self.model: Any = model.module if is_model_wrapper(model) else model
        self._wish = mode
        self._ways = _ways(self.model, mode)
        self._refused: dict[str, str] = {}
        self._choose()
        self._patches: list[tuple[Any, str, Any]] = []
        self._watched: list[Any] = []
        # The largest batch whose decomposition was looked at; 0 if none was yet.
        self._checked = 0
        # Criteria that were looked at, and those that yield no elements.
        self._known: set[int] = set()
        self._opaque: set[int] = set()
        self._wrong: Tensor | None = None
        self._inside = False
        self._owners: Owners | None = None
        self._factor = 1.0
        self._divided: dict[str, Tensor] | None = None
        self._weights: Tensor | None = None
        self._clear()

    @property
    def mode(self) -> str:
        """The mode in use."""
        return self._ways[0].mode

    @property
    def note(self) -> str:
        """What is worth a line in the log about the mode; may be empty."""
        if self._ways[0].whole_model:
            return 'the networks run twice in every step'
        return ''

    def start(self, weights: Tensor) -> None:
        """Begins a training step.

        Args:
            weights: (B,) float32 factors of the samples' losses, on the CPU.

        Raises:
            UserError: a hook has changed the model, and it fits no mode any more.
        """
        self.detach()
        self._clear()
        device = next(self.model.parameters()).device
        self._weights = weights.to(device, non_blocking=True)
        self._weighted = bool((weights != 1).any())
        self._watch()

    def take(self) -> Tensor:
        """Ends the step and returns the unweighted losses, (B,) float32 on the model's device.

        Raises:
            UserError: the step had none.
        """
        if self._losses is None:
            raise UserError(
                f'dynamic pruning: no per-sample loss was seen in a training step of '
                f'{type(self.model).__name__}; use {_RANDOM}'
            )

        # Elements of which it is not known whose they are add up all the same.
        wrong = self._differs() | (self._reason is not None)
        self._wrong = wrong if self._wrong is None else self._wrong | wrong
        losses = self._losses
        self.detach()
        self._clear()

        return losses

    def problem(self) -> str | None:
        """Why the losses since the last call are not those of the samples; None if they are."""
        wrong = self._wrong
        self._wrong = None
        if wrong is None or not bool(wrong):
            return None
        return f'{_LOSSES} no longer add up to the loss that is trained on'

    def reject(self, problem: str) -> None:
        """Takes the next mode from the next step on. All processes must do so together.

        Args:
            problem: of the present mode.

        Raises:
            UserError: there is no other mode.
        """
        self._refuse(problem)
        self._choose()
        self._checked = 0

    def detach(self) -> None:
        """Leaves the model as it was."""
        for owner, name, before in reversed(self._patches):
            if before is None:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before
        self._patches = []
        self._weights = None

    def state_dict(self) -> dict[str, Any]:
        """Which mode was found to fit, so that a resumed training goes on with it."""
        return dict(ways=len(self._ways))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave, if the model is still of the same kind."""
        count = saved['ways']
        if 0 < count <= len(self._ways):
            self._ways = self._ways[-count:]

    def _clear(self) -> None:
        self._losses: Tensor | None = None
        self._total: Tensor | None = None
        self._size_of_total: Tensor | None = None
        self._precision = torch.finfo(torch.float32).eps
        self._reason: str | None = None
        # In mode 'image': what was trained on, and the parts of the samples' and the batch's loss.
        self._expected: Tensor | None = None
        self._own: dict[str, Tensor] = {}
        self._plain: dict[str, Tensor] = {}

    def _choose(self) -> None:
        """Drops modes that the model is not built for."""
        while True:
            problem = self._ways[0].problem(self.model)
            if problem is None:
                return
            self._refuse(problem)

    def _refuse(self, problem: str) -> None:
        """Drops the present mode.

        Raises:
            UserError: there is no other mode.
        """
        mode = self._ways.pop(0).mode
        self._refused[mode] = problem
        if self._ways:
            return
        name = type(self.model).__name__
        if self._wish == 'auto':
            problems = [f'{mode}: {problem}' for mode, problem in self._refused.items()]
            raise UserError(
                f'dynamic pruning finds no per-sample losses of {name} ({"; ".join(problems)}): '
                f'use {_RANDOM}'
            )

        other = "'image'" if self._wish == 'batch' else "'auto'"
        raise UserError(
            f'dynamic.loss={self._wish!r} does not fit {name} ({problem}): '
            f'use {other}, or {_RANDOM}'
        )

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        attributes = vars(owner)
        self._patches.append((owner, name, attributes.get(name)))
        object.__setattr__(owner, name, value)

    def _watch(self) -> None:
        """Looks at the model anew, because hooks may have given it other heads or criteria."""
        self._choose()
        self._watch_step()
        watched = self._ways[0].watch(self)
        before = [id(module) for module in self._watched]
        if [id(module) for module in watched] != before:
            self._checked = 0
            self._known = set()
            self._opaque = set()

        # Kept, so that no other module gets the same id.
        self._watched = watched

    def _watch_step(self) -> None:
        name = step_name(self.model)
        plain = getattr(self.model, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            is_loss = name == 'loss' or kwargs.get('mode') == 'loss'
            if not is_loss or self._weights is None or self._inside:
                return plain(*args, **kwargs)
            if self._must_check():
                return self._checked_step(plain, args, kwargs)
            return self._step(plain, args, kwargs)

        self._patch(self.model, name, call)

    def _must_check(self) -> bool:
        assert self._weights is not None
        if self._checked == 0:
            return True
        # A single sample does not show what a batch of them is like.
        return self.mode == 'image' and self._checked == 1 < len(self._weights)

    def _step(self, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._ways[0].whole_model:
            losses = self._by_image(self.model, plain, self._images_of_model, args, kwargs)
        else:
            losses = plain(*args, **kwargs)
        self._add_total(losses)
        return losses

    def _by_image(
        self,
        owner: nn.Module,
        plain: Callable[..., Any],
        split: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """What ``plain`` returns, or with weights the weighted mean of the samples' own losses.

        Args:
            owner: the head or model that is called; it remembers what it does after ``plain``.
            plain: its ``loss``.
            split: the loss dict of each sample, from what to do before it, ``args`` and ``kwargs``.
            args: of ``plain``.
            kwargs: of ``plain``.
        """
        assert self._weights is not None
        if len(self._weights) == 1:
            batch = plain(*args, **kwargs)
            return self._with_own(batch, [batch], self._weighted)

        weighted = self._weighted_anywhere(owner)
        has_gradients = torch.is_grad_enabled()
        # What is trained on gets the arguments themselves.
        spare_args, spare_kwargs = copied((args, kwargs))
        if weighted:
            images = self._images_aside(owner, split, args, kwargs, has_gradients)
            args, kwargs = spare_args, spare_kwargs
        else:
            images = self._images_aside(owner, split, spare_args, spare_kwargs, False)

        # Else autocast's copies of the weights would have no gradients in what follows.
        torch.clear_autocast_cache()
        with torch.set_grad_enabled(not weighted and has_gradients):
            batch = plain(*args, **kwargs)
        return self._with_own(batch, images, weighted)

    def _images_aside(
        self,
        owner: nn.Module,
        split: Callable[..., Any],
        args: Any,
        kwargs: Any,
        has_gradients: bool,
    ) -> Any:
        """The loss dict of each sample, with no trace in the owner or in random states."""
        parameter = next(self.model.parameters())
        memory = ModuleMemory(owner.modules())

        def before_image(position: int) -> None:
            memory.restore()

        with kept_random_states([parameter]), torch.set_grad_enabled(has_gradients):
            images = split(before_image, args, kwargs)
        memory.restore()

        return images

    def _weighted_anywhere(self, owner: nn.Module) -> bool:
        """Whether the step has weights, in any process whose backward pass others wait for."""
        if get_world_size() == 1:
            return self._weighted
        waits = any(isinstance(module, nn.SyncBatchNorm) for module in owner.modules())
        if not waits:
            return self._weighted
        found = _together(frozenset([self._weighted]))
        return True in found

    def _images_of_model(
        self, before_image: Callable[[int], None], args: Any, kwargs: Any
    ) -> list[dict[str, Any]]:
        split = partial(forward_losses_per_image, self.model, before_image=before_image)
        return split(*args, **kwargs)

    def _with_own(
        self, batch: dict[str, Any], images: Sequence[dict[str, Any]], weighted: bool
    ) -> dict[str, Any]:
        """Books the samples' own losses; returns the loss dict that is trained on."""
        own = self._entries_of(images)
        plain = loss_components(self.model, batch)
        trained = batch
        if weighted:
            trained = {**batch, **self._weighted_means(own, plain)}
        self._own = _detached(own)
        self._plain = _detached(plain)
        parts = torch.stack(list(self._own.values()))
        self._add(parts.sum(0))
        total, _ = self.model.parse_losses(trained)
        self._expected = _sum(self._expected, _plain_number(total))

        return trained

    def _entries_of(self, images: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The parts of the samples' losses, (B,) each; one that a sample does not have is 0."""
        parsed = [loss_components(self.model, image) for image in images]
        names = dict.fromkeys(name for entries in parsed for name in entries)
        result = {}
        for name in names:
            known = [entries[name] for entries in parsed if name in entries]
            zero = known[0].detach() * 0
            values = [entries.get(name, zero) for entries in parsed]
            result[name] = torch.stack(values)
        return result

    def _weighted_means(
        self, own: dict[str, Tensor], plain: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weighted means of the own losses, as large as the batch's where weights are 1."""
        assert self._weights is not None
        result = {}
        for name, values in own.items():
            unweighted = values.detach().mean()
            whole = plain.get(name, unweighted).detach()
            ratio = whole / unweighted
            is_scale = ratio.isfinite() & (ratio >= 0)
            scale = torch.where(is_scale, ratio, 1)
            mean = (values * self._weights).mean()
            result[name] = scale * mean

        return result

    def _checked_step(self, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A step whose decomposition is looked at; where it fails, the same step in the next mode.

        All processes come to the same result.
        """
        assert self._weights is not None
        weights = self._weights
        while True:
            spare = copy.deepcopy((args, kwargs))
            states = random_states()
            memory = ModuleMemory(self.model.modules())
            losses, problem = self._tried(plain, args, kwargs)
            problem = _first_problem(problem)
            if problem is None:
                self._checked = len(weights)
                return losses

            memory.restore()
            set_random_states(states)
            self.reject(problem)
            self.detach()
            self._clear()
            self._weights = weights
            self._watch()
            args, kwargs = spare

    def _tried(self, plain: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, str | None]:
        """A step's losses, and why the samples' losses are not to be had in this mode, or None."""
        try:
            losses = self._step(plain, args, kwargs)
        except UserError as error:
            return None, str(error)

        if self._losses is None:
            return losses, self._reason or 'its loss calls no criterion that was found'
        if self._reason is not None:
            return losses, self._reason
        if bool(self._differs()):
            return losses, f'{_LOSSES} do not add up to the loss that is trained on'
        if self.mode == 'image':
            return losses, self._problem_of_images()
        return losses, None

    def _problem_of_images(self) -> str | None:
        """Why the samples' own losses do not go with the loss of the batch, or None."""
        plain = torch.stack(list(self._plain.values()))
        own = torch.stack(list(self._own.values()))
        if _is_finite(plain) and not _is_finite(own):
            return "its samples' own losses are not finite"
        if is_detector(self.model):
            return None
        gaps = 0.0
        for name, whole in self._plain.items():
            values = self._own.get(name, whole.new_zeros(1))
            # It averages over the samples or adds them up.
            from_mean = (values.mean() - whole).abs()
            from_sum = (values.sum() - whole).abs()
            gaps += float(min(from_mean, from_sum))

        size = float(plain.abs().sum())
        if gaps > self._tolerance() * size:
            return "its samples' own losses do not make up the loss of the batch"
        return None

    def _differs(self) -> Tensor:
        """Whether what was found is not what is trained on; a bool on the model's device."""
        assert self._losses is not None and self._weights is not None
        if self._total is None or self._size_of_total is None:
            return torch.zeros((), dtype=torch.bool, device=self._losses.device)
        found = self._expected
        if found is None:
            weighted = self._losses * self._weights
            found = weighted.mean()

        gap = (found - self._total).abs()

        # False where a loss is not finite.
        return gap > self._tolerance() * self._size_of_total

    def _tolerance(self) -> float:
        """By what share of their size losses may differ that are the same but for rounding."""
        return math.sqrt(self._precision)

    def _add_total(self, losses: Any) -> None:
        """Takes up the loss that is trained on."""
        components = loss_components(self.model, losses)
        for value in components.values():
            self._note_precision(value)
        total, _ = self.model.parse_losses(losses)
        parts = [_plain_number(value) for value in components.values()]
        size = torch.stack(parts).abs().sum()
        self._total = _sum(self._total, _plain_number(total))
        self._size_of_total = _sum(self._size_of_total, size)

    def _note_precision(self, value: Tensor) -> None:
        if not value.is_floating_point():
            return
        precision = torch.finfo(value.dtype).eps
        self._precision = max(self._precision, precision)

    def _add(self, losses: Tensor, name: str = '') -> None:
        """Takes up a part of the samples' losses, (B,)."""
        losses = _plain_number(losses)
        divided = self._divided
        if divided is None:
            self._losses = _sum(self._losses, losses)
        else:
            divided[name] = _sum(divided.get(name), losses)

    def _watch_criteria(self) -> list[Any]:
        criteria = find_criteria(self.model)
        for criterion in criteria:
            self._patch(criterion, 'forward', self._split(criterion, ''))
        self._owners = equal_runs(self.model)
        return criteria

    def _watch_heads(self) -> list[Any]:
        watched = []
        for head, factor in find_heads(self.model):
            known = known_elements(head)
            assert known is not None
            for method in known.methods:
                owners = partial(known.owners, head)
                located = self._located(getattr(head, method), owners, factor)
                self._patch(head, method, located)

            if known.divided_in is not None:
                rescaled = self._rescaled(getattr(head, known.divided_in))
                self._patch(head, known.divided_in, rescaled)

            watched.append(head)
            for name in known.criteria:
                criterion = getattr(head, name)
                self._patch(criterion, 'forward', self._split(criterion, name))
                watched.append(criterion)

        self._owners = None
        return watched

    def _watch_only_head(self) -> list[Any]:
        head = only_head(self.model)
        assert head is not None
        loss = head.loss

        def images(
            before_image: Callable[[int], None], args: Any, kwargs: Any
        ) -> list[dict[str, Any]]:
            assert self._weights is not None
            return head_losses_per_image(head, len(self._weights), args, kwargs, before_image)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._weights is None:
                return loss(*args, **kwargs)
            return self._by_image(head, loss, images, args, kwargs)

        self._patch(head, 'loss', call)

        return [head]

    def _watch_model(self) -> list[Any]:
        if is_detector(self.model):
            return [self.model]
        return [self.model, *find_criteria(self.model)]

    def _rescaled(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Makes up for heads that divide all their losses by one number, after the criteria."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._weights is None:
                return method(*args, **kwargs)
            shares: dict[str, Tensor] = {}
            self._divided = shares
            try:
                losses = method(*args, **kwargs)
            finally:
                self._divided = None

            for name, share in shares.items():
                levels = [value.detach() for value in losses[name]]
                final = torch.stack(levels).sum()
                total = (share * self._weights).mean()
                rescaled = share * (final / total)
                self._add(torch.where(total > 0, rescaled, share))

            return losses

        return call

    def _located(
        self, method: Callable[..., Any], owners: Callable[..., Owners], factor: float
    ) -> Callable[..., Any]:
        """Lets the criteria that ``method`` calls know whose elements they see."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._owners = owners(*args, **kwargs)
            self._factor = factor
            try:
                return method(*args, **kwargs)
            finally:
                self._owners = None
                self._factor = 1.0

        return call

    def _split(self, criterion: Any, name: str) -> Callable[..., Any]:
        """The criterion's ``forward``, which also adds up the elements of each sample."""
        forward = criterion.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            # A criterion may call another one.
            watched = self._weights is not None and self._owners is not None and not self._inside
            if not watched or kwargs.get('reduction_override') is not None:
                return forward(*args, **kwargs)
            self._inside = True
            try:
                return self._call(Criterion(criterion, forward), name, args, kwargs)
            finally:
                self._inside = False

        return call

    def _call(self, criterion: Criterion, name: str, args: Any, kwargs: Any) -> Any:
        """What the criterion returns, or with weights the sum of its weighted elements."""
        assert self._owners is not None
        identity = id(criterion.module)
        if identity not in self._known | self._opaque:
            self._look_at(criterion, args, kwargs)
        if identity in self._opaque:
            kind = type(criterion.module).__name__
            self._reason = f'{kind} is no sum over elements that it can tell'
            return criterion.forward(*args, **kwargs)

        # The call that is trained on comes last, so that the criterion remembers it and nothing
        # else.
        if self._weighted:
            value = criterion.aside(criterion.forward, args, kwargs)
            elements = criterion.elements(*args, **kwargs)
            trained = elements
        else:
            elements = criterion.aside(criterion.elements, args, kwargs)
            value = criterion.forward(*args, **kwargs)
            trained = value

        if elements.dim() == 0:
            # Criteria of boxes return their 0 like that where no element has a weight.
            return trained

        self._note_precision(value)
        target = args[1] if len(args) > 1 else None
        owner = self._owners(name, len(elements), target)
        whole = value.detach().sum()
        weighted = self._share(whole, elements, owner, name)
        if self._weighted:
            return weighted.reshape(value.shape)
        return trained

    def _look_at(self, criterion: Criterion, args: Any, kwargs: Any) -> None:
        """Finds out whether a criterion is the sum of its elements times a number apart from them.

        That is so where its slope is the elements' slope times that number. Calls in which nothing
        has a slope do not show it, so that the next one is looked at as well.
        """
        identity = id(criterion.module)
        try:
            slopes = criterion.slopes(args, kwargs)
        except Exception:
            # It does not know how to return elements.
            self._opaque.add(identity)
            return

        if slopes is None:
            return
        whole, parts = slopes
        self._note_precision(args[0])
        gap = (whole - parts).abs().max()
        size = whole.abs().max()
        if bool(gap > self._tolerance() * size):
            self._opaque.add(identity)
        elif bool(whole.any()):
            self._known.add(identity)

    def _share(self, value: Tensor, elements: Tensor, owner: Tensor | None, name: str) -> Tensor:
        """Books what each sample has of a criterion's value.

        Args:
            value: what the criterion returns.
            elements: (n, ...) losses, which are ``value`` when added up and multiplied by a number.
            owner: (n,) int64 position of the sample that each one is of; None for B equal runs of
                elements.
            name: of the criterion.

        Returns:
            The sum of the weighted shares.
        """
        assert self._weights is not None
        size = len(self._weights)
        count = len(elements)
        if not self._fits(owner, count):
            self._reason = f'{count} loss elements do not belong to {size} samples'
            owner = torch.zeros(count, dtype=torch.long, device=elements.device)

        exact = torch.promote_types(elements.dtype, torch.float32)
        rows = elements.reshape(count, -1).to(exact)
        rows = rows.sum(1)
        sums = _sums_of_samples(rows.detach(), owner, size)
        whole = sums.sum()
        scale = torch.where(whole != 0, value / whole, 0)
        factor = scale * size * self._factor
        self._add(sums * factor, name)
        weighted = rows * _spread(self._weights, owner, count)

        return scale * weighted.sum()

    def _fits(self, owner: Tensor | None, count: int) -> bool:
        """Whether it is known whose each of ``count`` elements is."""
        assert self._weights is not None
        if owner is not None:
            return len(owner) == count
        if self.mode == 'element':
            return count == len(self._weights)
        return count % len(self._weights) == 0


def _sum(before: Tensor | None, value: Tensor) -> Tensor:
    if before is None:
        return value
    return before + value


def _sums_of_samples(rows: Tensor, owner: Tensor | None, size: int) -> Tensor:
    """The sums of ``size`` samples' elements; without owners they are as many equal runs."""
    if owner is None:
        runs = rows.reshape(size, -1)
        return runs.sum(1)
    return rows.new_zeros(size).index_add_(0, owner, rows)


def _spread(weights: Tensor, owner: Tensor | None, count: int) -> Tensor:
    """The weights of ``count`` elements, each being that of its sample."""
    if owner is None:
        return weights.repeat_interleave(count // len(weights))
    return weights[owner]


def _plain_number(value: Tensor) -> Tensor:
    return value.detach().float()


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: _plain_number(value) for name, value in values.items()}


def _is_finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _first_problem(problem: str | None) -> str | None:
    """One problem of all processes, the same in each of them; None if there is none."""
    problems: frozenset[str] = frozenset()
    if problem is not None:
        problems = frozenset([problem])
    return min(_together(problems), default=None)


def _together(names: frozenset[Any]) -> frozenset[Any]:
    """What any of the processes has found."""
    if get_world_size() == 1:
        return names
    return frozenset().union(*all_gather_object(names))


@dataclass(frozen=True)
class _Way:
    """How losses are taken.

    Attributes:
        mode: its name.
        problem: why a model is not built for it, or None.
        watch: puts what takes the losses in place; returns the modules that it relies on.
        whole_model: whether the model's whole loss is computed image by image.
    """

    mode: str
    problem: Callable[[Any], str | None]
    watch: Callable[[SampleLosses], list[Any]]
    whole_model: bool = False


def _ways(model: Any, mode: str) -> list[_Way]:
    """The ways of a mode, or all that come into question."""
    image = [
        _Way('image', no_only_head, SampleLosses._watch_only_head),
        _Way('image', not_splittable, SampleLosses._watch_model, whole_model=True),
    ]
    element = _Way('element', no_criteria, SampleLosses._watch_criteria)
    batch = _Way('batch', not_decomposable, SampleLosses._watch_heads)
    if mode == 'auto':
        return [batch if is_detector(model) else element, *image]
    named = dict(
        element=[element],
        batch=[batch],
        image=image,
    )

    return named[mode]
