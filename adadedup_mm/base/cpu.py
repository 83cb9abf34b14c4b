"""What makes networks faster on a CPU without changing what they compute."""

import contextlib
import ctypes
import itertools
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# glibc's names for the options of mallopt.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
# What they are to be otherwise, unless the environment says something else. By itself glibc raises
# both thresholds up to these values as needed, but no longer does so once any option has been set.
_OTHERWISE = {
    _M_MMAP_MAX: ('MALLOC_MMAP_MAX_', 65536),
    _M_MMAP_THRESHOLD: ('MALLOC_MMAP_THRESHOLD_', 32 << 20),
    _M_TRIM_THRESHOLD: ('MALLOC_TRIM_THRESHOLD_', 64 << 20),
    _M_TOP_PAD: ('MALLOC_TOP_PAD_', 128 << 10),
}
# oneDNN's names for activations.
_NO_ACTIVATION: tuple[str, list[float], str] = ('none', [], '')
_ACTIVATIONS: dict[type | None, tuple[str, list[float], str]] = {
    nn.ReLU: ('relu', [], ''),
    nn.ReLU6: ('hardtanh', [0.0, 6.0], ''),
}


def has_fast_bf16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 numbers itself; on Linux, otherwise no."""
    try:
        flags = Path('/proc/cpuinfo').read_text(encoding='utf-8').split()
    except OSError:
        return False
    return 'avx512_bf16' in flags or 'amx_bf16' in flags


def default_workers() -> int:
    """The cores that this process may use, at most 32.

    Those of the machine are shared with the other processes that a launcher started on it.
    """
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    stated = os.environ.get('LOCAL_WORLD_SIZE', '')
    processes = int(stated) if stated.isdecimal() else 1
    share = cores // max(1, processes)
    return max(1, min(32, share))


@contextlib.contextmanager
def single_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each run torch on one core.

    Whole batches side by side use the cores better than one batch split over them, and the results
    do not depend on how many cores there are.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def keep_freed_pages() -> Iterator[None]:
    """Keeps glibc's malloc from handing memory back to the system between two batches.

    By default it unmaps the activations of every layer, and the page faults of the next batch take
    longer than its arithmetic. Without glibc this does nothing.
    """
    if platform.libc_ver()[0] != 'glibc':
        yield
        return

    libc = ctypes.CDLL(None)
    libc.strtoul.restype = ctypes.c_ulong
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    # Threads allocate from heaps of at most 64 MiB, each of which goes once it is empty unless this
    # is larger.
    libc.mallopt(_M_TOP_PAD, 128 << 20)
    try:
        yield
    finally:
        for option, (name, value) in _OTHERWISE.items():
            # Read as glibc reads it: hexadecimal numbers too, and what is no number is 0.
            stated = os.environ.get(name, str(value))
            number = libc.strtoul(stated.encode(), None, 0)
            libc.mallopt(option, min(number, 2**31 - 1))

        libc.malloc_trim(0)


def accelerate(network: nn.Module, size: int) -> bool:
    """Folds the batch norms of a float32 network and gives it oneDNN's matrix products, in place.

    Args:
        network: takes (B, 3, size, size) and returns a tensor or a list of them, in evaluation
            mode.
        size: in pixels.

    Returns:
        Whether it still computes the same on random images. It does not where batch norms are used
        in another order than they are listed, or where torch has no oneDNN: the network is of no
        use then.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = _flat(network(images))
        _fold_batch_norms(network)
        _use_onednn(network)
        try:
            difference = _flat(network(images)) - expected
        except (RuntimeError, AttributeError):
            return False

        return bool(difference.norm() <= 1e-4 * expected.norm())


def _flat(outputs: Tensor | list[Tensor]) -> Tensor:
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    return torch.cat([output.flatten() for output in outputs])


def _fold_batch_norms(network: nn.Module) -> None:
    for parent in network.modules():
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if conv.out_channels != norm.num_features or norm.running_mean is None:
                continue
            setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
            # timm's batch norms carry the activation that follows.
            activation = getattr(norm, 'act', nn.Identity())
            setattr(parent, norm_name, activation)


def _use_onednn(network: nn.Module) -> None:
    """Calls oneDNN where torch would call something slower.

    It also applies the activation after a convolution.
    """
    for parent in network.modules():
        children = list(parent.named_children())
        for (_, module), (name, following) in itertools.pairwise([*children, ('', None)]):
            if type(module) is nn.Linear:
                module.__class__ = _Linear
            elif type(module) is nn.MultiheadAttention:
                module.__class__ = _Attention
            elif type(module) is nn.Conv2d and _has_padding_of_zeros(module):
                module.__class__ = _Conv
                activation = _ACTIVATIONS.get(type(following), _NO_ACTIVATION)
                module.activation = activation  # type: ignore[assignment]
                if activation is not _NO_ACTIVATION:
                    setattr(parent, name, nn.Identity())


def _has_padding_of_zeros(conv: nn.Conv2d) -> bool:
    """Whether it is told in pixels how many zeros surround an image."""
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


class _Conv(nn.Conv2d):
    """A convolution by oneDNN, and the activation after it.

    torch on one thread leaves oneDNN aside for 1x1 convolutions of less than 16 images, at half the
    speed.
    """

    activation: tuple[str, list[float], str]

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(
            input,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            *self.activation,
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``functional.linear`` by oneDNN: torch takes MKL, which is half as fast on AMD processors."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *_NO_ACTIVATION)


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return _linear(input, self.weight, self.bias)


class _Attention(nn.MultiheadAttention):
    """Self-attention without a mask; everything else is left to torch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        if not self._is_plain(query, key, value) or args or not _wants_no_weights(options):
            return super().forward(query, key, value, *args, **options)
        batch, length, width = query.shape
        heads = self.num_heads
        qkv = _linear(query, self.in_proj_weight, self.in_proj_bias)
        by_head = qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = by_head.reshape(3, batch * heads, length, -1).unbind()
        scale = self.head_dim**-0.5
        logits = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=scale)
        weights = logits.softmax(-1)
        attended = torch.bmm(weights, v).view(batch, heads, length, -1)
        joined = attended.transpose(1, 2).reshape(batch, length, width)

        return _linear(joined, self.out_proj.weight, self.out_proj.bias), None

    def _is_plain(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        is_self_attention = query is key is value
        is_batch = query.ndim == 3 and self.batch_first
        is_usual = self._qkv_same_embed_dim and self.bias_k is None and not self.add_zero_attn
        return is_self_attention and is_batch and is_usual


def _wants_no_weights(options: dict[str, Any]) -> bool:
    """Whether the options of an attention ask for its result alone, without a mask."""
    if set(options) - {'need_weights', 'attn_mask'}:
        return False
    return not options.get('need_weights', True) and options.get('attn_mask') is None
