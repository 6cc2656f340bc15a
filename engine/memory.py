"""Out-of-memory errors: the memory of a step, and the batch size that would fit."""

from __future__ import annotations

import gc
import traceback

import torch

from datamodules.base import Batch
from datamodules.feed import Feed
from engine.devices import autocast, free_cached_memory
from layers.saved import SavedBytes
from methods._base import Method
from utils import UserError, free_memory_bytes, human_bytes

_PROBE = 8  # images; enough that what does not grow with the batch is small beside what does
# A backward pass needs about as much again for the gradients of what the forward pass has kept. The half is for what
# threads and libraries take meanwhile: with 2.0 a size that was named did not always fit on a busy machine.
_REST = 2.5
_WORDS = (
    "can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "Unable to allocate",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, numpy or Python ran out of memory; on a CPU torch has no exception type for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def activation_bytes(method: Method, batch: Batch, precision: str) -> int:
    """The most that autograd holds at any time of one training step on ``batch``, without the weights.

    Local methods free a block's part before the next one is computed, and it shows. Gradients are cleared afterwards.
    `torch.cuda.max_memory_allocated` has no like on a CPU.
    """
    counter = SavedBytes(method.parameters())
    with counter.hooks, autocast(batch.x_BCHW.device, precision):
        method.fill_grads(batch)
    method.zero_grad(set_to_none=True)
    return counter.peak_bytes


def free_bytes(device: torch.device) -> int:
    """Free memory: of the GPU, or of the machine and within the limit of this process."""
    if device.type == "cuda":
        free_cached_memory(device)
        return torch.cuda.mem_get_info(device)[0]
    return free_memory_bytes()


def forget(error: BaseException) -> None:
    """Free what the frames of a failed step hold: its activations, and the layout that took it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__  # type: ignore[assignment]
    gc.collect()


def explain(method: Method, feed: Feed, precision: str, parts: int = 1, *, accumulates: bool = False) -> UserError:
    """The line that ends a run whose step needed more memory than there is, from measured bytes.

    To be called when the step's memory is free again: after `forget`, and without its layout.

    Args:
        method: what is trained.
        feed: the training images.
        precision: value of ``--precision``.
        parts: equal ones of a batch, which are computed side by side in as much memory each, or one after the other.
        accumulates: whether they may be computed one after the other.
    """
    method.zero_grad(set_to_none=True)
    gc.collect()
    size, device = feed.batch_size, feed.device
    said = f"out of memory with --batch_size {size}"
    try:
        free_cached_memory(device)
        probe = feed.batch(0, 0).first(_PROBE)
        method.to(device)  # Lightning moves it to the CPU when a run ends
        per_image = activation_bytes(method, probe, precision) / probe.y_B.shape[0]
        free = free_bytes(device)
    except (RuntimeError, MemoryError, OSError):
        return UserError(f"{said}, and a batch of {_PROBE} does not fit either")
    share = min(int(free / (_REST * per_image)), size // parts // 2)  # the failure says more than a sum does
    measured = f"activations take {human_bytes(per_image)} an image, {human_bytes(free)} are free"
    if share < 2:
        return UserError(f"{said}: {measured}; choose a smaller --model")
    smaller = f"--batch_size {share * parts} should fit"
    numbers = range(parts + 1, size // 2 + 1) if accumulates else ()
    more = next((number for number in numbers if size % number == 0 and size // number <= share), None)
    smaller += f", or --accumulate {more} with the batch as it is" if more else ""
    return UserError(f"{said}: {measured}; {smaller}")
