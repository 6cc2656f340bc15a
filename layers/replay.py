"""Computing a module a second time with the random numbers of the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """What torch's own generators were about to draw: on the CPU, and on the GPU where it is used.

    `layers.dropout.Dropout` does not draw from them; dropout in a network of the user's own may. In a CUDA graph
    nothing draws from them (`engine.loop.capturable`), and their state cannot be read there.
    """

    cpu: Tensor
    gpu: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """The state at present."""
        reads_gpu = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if reads_gpu else None, device)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Inside, numbers are drawn as from that state on; afterwards as if nothing had been drawn."""
        with torch.random.fork_rng([self.device] if self.gpu is not None else []):
            torch.set_rng_state(self.cpu)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu, self.device)
            yield
