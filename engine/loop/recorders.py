"""CUDA-graph capture of a training step (`engine.loop.tape` stands in for it on a CPU)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from engine.loop.capturable import OnlyCapturable

NUM_WARM_UP = 3  # calls in which libraries choose kernels and state is created lazily, before the capture

Step = Callable[[], None]


class Recorder(Protocol):
    """Runs a step for warm-up, then records it. For one recording only."""

    def warm_up(self, begin: Step, step: Step) -> None:
        """Call ``begin`` and ``step`` `NUM_WARM_UP` times.

        Raises:
            RuntimeError: the step fails, or does what cannot be captured.
        """

    def capture(self, step: Step, generators: Sequence[torch.Generator] = ()) -> Step:
        """Record ``step``; returns its replay. Whether the step is also executed meanwhile is not specified.

        Args:
            step: what is recorded.
            generators: those that it draws from, beside torch's own. Each replay draws as the host has seeded them.

        Raises:
            RuntimeError: it cannot be captured.
        """


Recorders = Callable[[], Recorder]


class CudaGraphs:
    """Captures a step in one CUDA graph; warm-up and capture use a side stream, as `torch.cuda.graph` requires.

    Each has a stream of its own: cuBLAS keeps a workspace for every stream, and a graph writes to that of the stream on
    which it was captured, wherever it is replayed. Graphs that run side by side must not share one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, begin: Step, step: Step) -> None:
        """As `Recorder.warm_up`; the last call is asked whether a graph can hold it."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        try:
            with torch.cuda.stream(self._stream):
                for place in range(NUM_WARM_UP):
                    begin()
                    with capturable(self._device) if place == NUM_WARM_UP - 1 else contextlib.nullcontext():
                        step()
        finally:  # also of a step that failed: what it has enqueued still writes to the weights
            main.wait_stream(self._stream)

    def capture(self, step: Step, generators: Sequence[torch.Generator] = ()) -> Step:
        """As `Recorder.capture`; returns the graph's replay."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # The outer context restores the stream, which a failed capture does not.
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
            step()
        return graph.replay


@contextlib.contextmanager
def capturable(device: torch.device) -> Iterator[None]:
    """Make whatever a CUDA graph cannot hold raise a RuntimeError, as far as can be known before the capture."""
    with OnlyCapturable(device), no_waiting():
        yield


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Make every operation that synchronises the host with the GPU raise a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # torch's own, once in a process: that this mode does not see everything yet
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
