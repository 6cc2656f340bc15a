"""Devices, precision, determinism, and compilation."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import resource
import time
from contextlib import AbstractContextManager

import torch
from torch import nn

from datamodules.base import Batch
from methods._base import Method
from utils import UsageError

CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for deterministic cuBLAS
BF16_MUST_WIN_BY = 1.15  # below this the probe cannot tell the two apart reliably, and fp32 is the safer choice
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX, _NEVER = -1, -3, -8, 2**31 - 1  # of malloc.h; its largest value


def resolve_device(name: str) -> torch.device:
    """The device of ``--device``; ``auto`` is the first GPU if there is one.

    Raises:
        UsageError: a GPU is asked for that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0" if count else "no CUDA device"
        raise UsageError(
            f"--device {name}: this machine has {there}; allowed is auto or cpu" + (", or one of those" * bool(count))
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Context in which blocks and heads compute in ``precision``; weights, statistics and losses stay in float32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor of that size, for the rest of the process.

    By itself it gives every large block back at once and gets it again at the next step, page by page, which can take
    longer than the arithmetic (`docs/performance.md`). All threads share one arena: one that a thread has for itself
    consists of 64 MiB pieces, which are given back. Another C library's allocator is left as it is, and so is one
    that the user has set up by an environment variable of glibc's. A process whose memory is limited needs it back:
    what is kept lies in pieces, and a large tensor fits into none of them.
    """
    library = ctypes.CDLL(None)
    is_set_up = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    is_limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if hasattr(library, "mallopt") and not is_set_up and not is_limited:
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, _NEVER)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def set_determinism(deterministic: bool) -> None:
    """Let cuDNN choose the fastest kernel, or only kernels that give equal bits every time.

    Called before anything runs on a GPU, since cuBLAS reads its setting once.
    """
    if deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def _seconds(method: Method, batch: Batch, precision: str) -> float:
    device = batch.x_BCHW.device
    begin = time.perf_counter()
    with autocast(device, precision):
        method.fill_grads(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def choose_precision(method: Method, batch: Batch, rounds: int = 6) -> tuple[str, float]:
    """The faster of fp32 and bf16 on this device, from a few training steps of a copy of ``method``.

    Returns:
        The precision, and fp32's time over bf16's (best of ``rounds``, interleaved). The method, its buffers and the
        random state are as before.
    """
    probe = copy.deepcopy(method)
    batch = batch.first(32)
    best = dict.fromkeys(("fp32", "bf16"), float("inf"))
    with torch.random.fork_rng(devices=[batch.x_BCHW.device] if batch.x_BCHW.is_cuda else []):
        for count in range(rounds + 1):
            for precision in best:
                seconds = _seconds(probe, batch, precision)
                best[precision] = min(best[precision], seconds if count else float("inf"))  # the first is a warm-up
    ratio = best["fp32"] / best["bf16"]
    return ("bf16" if ratio > BF16_MUST_WIN_BY else "fp32"), ratio


def compile_blocks(method: Method, device: torch.device) -> None:
    """Compile the convolutional part and the heads of every block, each by itself, in place.

    Raises:
        UsageError: a CPU without a C++ compiler.
    """
    import torch._functorch.config

    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:
            raise UsageError(
                f"--compile needs a C++ compiler on a CPU, and none was found ({error}); install g++"
            ) from None
    parts: list[nn.Module] = [method.backbone.block(index).features for index in range(method.backbone.num_blocks)]
    for index in range(method.first_trainable, method.backbone.num_blocks):
        parts += method.block_heads(index)
    # All parts share the forward of nn.Sequential, and torch gives up on a function after eight variants of it.
    torch._dynamo.config.recompile_limit = 8 * len(parts)
    # Otherwise the first backward pass would use up a part's buffers, and some methods send two through it.
    torch._functorch.config.donated_buffer = False
    for part in parts:
        part.compile()
