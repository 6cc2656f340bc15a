"""What turns a step into something that is repeated without its code: a CUDA graph (`engine.loop.tape` is its twin)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

NUM_WARM_UP = 3  # libraries choose their kernels, and lazy state comes to be, before anything is captured

Step = Callable[[], None]


class Recorder(Protocol):
    """Warms a step up, then records it."""

    def warm_up(self, step: Step) -> None:
        """Call ``step`` `NUM_WARM_UP` times.

        Raises:
            RuntimeError: it fails, or waits for the device.
        """

    def capture(self, step: Step) -> Step:
        """What repeats ``step`` from now on; whether the step is also taken while it is recorded is left open.

        Raises:
            RuntimeError: it cannot be captured.
        """


class CudaGraphs:
    """Captures in one CUDA graph; warm-up and capture run on a stream of their own, as `torch.cuda.graph` asks."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, step: Step) -> None:
        """Call ``step``; the last time it must not wait.

        A wait would also end the capture, but after one that failed torch 2.11 cannot free memory any more (its
        allocator believes that the capture still runs, pytorch#180395).
        """
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(NUM_WARM_UP - 1):
                step()
            with no_waiting():
                step()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def capture(self, step: Step) -> Step:
        """Record ``step`` and give back the graph's replay."""
        graph = torch.cuda.CUDAGraph()
        # The outer context brings the stream back where a failed capture leaves it as it is.
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
            step()
        return graph.replay


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Let every operation that makes the host wait for the GPU raise a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
