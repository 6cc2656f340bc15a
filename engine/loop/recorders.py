"""CUDA-graph capture of a training step (`engine.loop.tape` stands in for it on a CPU)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

NUM_WARM_UP = 3  # calls in which libraries choose kernels and state is created lazily, before the capture

Step = Callable[[], None]


class Recorder(Protocol):
    """Runs a step for warm-up, then records it."""

    def warm_up(self, step: Step) -> None:
        """Call ``step`` `NUM_WARM_UP` times.

        Raises:
            RuntimeError: it fails, or waits for the device.
        """

    def capture(self, step: Step) -> Step:
        """Record ``step``; returns its replay. Whether the step is also executed meanwhile is not specified.

        Raises:
            RuntimeError: it cannot be captured.
        """


class CudaGraphs:
    """Captures a step in one CUDA graph; warm-up and capture use a side stream, as `torch.cuda.graph` requires."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, step: Step) -> None:
        """Call ``step``; the last call must not synchronise with the device.

        The capture would also find that, but after a capture that failed torch 2.11 cannot free memory any more (its
        allocator still assumes a running capture, pytorch#180395).
        """
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(NUM_WARM_UP - 1):
                step()
            with no_waiting():
                step()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def capture(self, step: Step) -> Step:
        """Capture ``step`` and return the graph's replay."""
        graph = torch.cuda.CUDAGraph()
        # The outer context restores the stream, which a failed capture does not.
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
            step()
        return graph.replay


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Make every operation that synchronises the host with the GPU raise a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
