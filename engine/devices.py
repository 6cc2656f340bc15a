"""Devices, precision, determinism, and compilation."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from methods._base import Method
from utils import UsageError

CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for deterministic cuBLAS
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX, _NEVER = -1, -3, -8, 2**31 - 1  # of malloc.h; its largest value


def use_device(name: str, *, deterministic: bool = False) -> torch.device:
    """Choose the device of ``--device`` and set it up for this process; call once, before anything runs on it.

    A GPU becomes the current one, to which calls of CUDA that name none refer. From here on kernels are deterministic
    where asked for, and float32 is never TF32 outside `autocast`.

    Raises:
        UsageError: a GPU is asked for that is not there.
    """
    device = resolve_device(name)
    set_determinism(deterministic)
    _set_tf32(matmul=False, convolution=False)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def resolve_device(name: str) -> torch.device:
    """The device of ``--device``; ``auto`` is the first GPU if there is one.

    Raises:
        UsageError: a GPU is asked for that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    kind, _, number = name.partition(":")
    index = int(number or 0)  # torch.device refuses what does not fit into a byte in words of its own
    if kind == "cuda" and index >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0" if count else "no CUDA device"
        raise UsageError(
            f"--device {name}: this machine has {there}; allowed is auto or cpu" + (", or one of those" * bool(count))
        )
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Context in which blocks and heads compute in ``precision``; weights, statistics and losses stay in float32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return _tf32() if precision == "tf32" else torch.autocast(device.type, torch.bfloat16)


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """Let a GPU round the factors of float32 products and convolutions to TF32's ten bits."""
    before = tf32_flags()
    _set_tf32(matmul=True, convolution=True)
    try:
        yield
    finally:
        _set_tf32(**before)


def tf32_flags() -> dict[str, bool]:
    """Whether float32 is TF32 now in matrix products, and in convolutions, which is torch's own default."""
    return {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32}


def describe_precision(device: torch.device, precision: str) -> dict[str, Any]:
    """For a run's record: the precision of its blocks, and where float32 is TF32 in them."""
    with autocast(device, precision):
        return {"precision": precision, "tf32": tf32_flags()}


def _set_tf32(*, matmul: bool, convolution: bool) -> None:
    # These flags set torch's newer `fp32_precision` too (2.11 to 2.14). After the newer ones alone, reading these or
    # `torch.get_float32_matmul_precision`, as Lightning does on a GPU, is an error.
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolution


def tf32_obstacle(device: torch.device) -> str:
    """The reason why ``device`` cannot compute in TF32 (NVIDIA's 19-bit float); empty if it can."""
    if device.type != "cuda":
        return "TF32 needs a GPU of compute capability 8.0 or higher"
    where, is_native = _capability(device)
    if not is_native:
        return where
    return "NVIDIA_TF32_OVERRIDE=0 switches TF32 off" if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else ""


def check_precision(device: torch.device, precision: str) -> None:
    """Refuse a ``--precision`` that ``device`` has not.

    Raises:
        UsageError: it has no TF32.
    """
    if precision == "tf32" and (obstacle := tf32_obstacle(device)):
        raise UsageError(f"--precision tf32: {obstacle}; allowed on {device} is auto, fp32 or bf16")


def _capability(device: torch.device) -> tuple[str, bool]:
    """A GPU's compute capability in words, and whether it is 8.0 or higher, which has bf16 and TF32."""
    major, minor = torch.cuda.get_device_capability(device)
    where = f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}"
    return (where, True) if major >= 8 else (f"{where}, below 8.0", False)


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


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on; the peak of a CPU's process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: allocated by torch on the GPU, or resident in the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reserved_memory(device: torch.device) -> int:
    """The most that torch has reserved on the GPU, in bytes, used or not; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def allocated_memory(device: torch.device) -> int:
    """Bytes that torch has allocated on the GPU now; 0 on a CPU, where nobody counts."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of the GPU's memory without using it."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # torch 2.11, after a capture that failed (pytorch#180395)
            torch.cuda.empty_cache()


def choose_precision(device: torch.device) -> tuple[str, str]:
    """What ``--precision auto`` means on ``device``, and why: a rule of the device alone, the same for every run.

    bf16 on GPUs of compute capability 8.0 or higher and on CPUs with native bf16, otherwise fp32. A measurement was
    tried: on a busy machine it chose differently from run to run, and then runs differ in their bits.
    """
    if device.type == "cuda":
        where, is_native = _capability(device)
        return "bf16" if is_native else "fp32", where
    native = {"AVX512-BF16": torch.cpu._is_avx512_bf16_supported(), "AMX": torch.cpu._is_amx_tile_supported()}
    if any(native.values()):
        return "bf16", f"this CPU has {' and '.join(name for name, has in native.items() if has)}"
    return "fp32", "this CPU has neither AVX512-BF16 nor AMX"


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
