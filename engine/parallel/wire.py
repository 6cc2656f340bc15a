"""Send block outputs from one process to the next: in order, without loss, asynchronously."""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist
from torch import Tensor

from engine.parallel.ranks import lost_connections_told

DEPTH = 2  # messages in flight before a sender blocks, as in the bounded queue between threads
_END = -1
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MAX_DIMS = 4
_HEADER = 3 + 2 * _MAX_DIMS  # step, type, dimensions, sizes, strides

# A message is a header, in the default group, which is gloo's, so that reading it never waits for a GPU, and the tensor
# in its own type and memory format: the next block's kernels then get what they would get in a single process.


class Sender:
    """The sending end of a link; it blocks only while `DEPTH` messages are in flight."""

    def __init__(self, peer: int, data: dist.ProcessGroup, *, via_host: bool = False) -> None:
        self._peer, self._data, self._via_host = peer, data, via_host
        self._under_way: deque[tuple[dist.Work, dist.Work, Tensor, Tensor]] = deque()
        self._last: Tensor | None = None

    def put(self, step: int, h_BCHW: Tensor) -> None:
        """Send the output of a step.

        Raises:
            PeerGone: the receiving process ended.
        """
        if self._via_host:
            h_BCHW = h_BCHW.cpu()
        self._send(step, h_BCHW if is_dense(h_BCHW) else h_BCHW.contiguous())

    def end(self) -> None:
        """Send the end of the stream, with a tensor, for which the receiver may already wait."""
        if self._last is None:
            with lost_connections_told():
                dist.send(_header(_END, torch.zeros(0)), self._peer)
        else:
            self._send(_END, self._last)
        self.flush()

    def flush(self) -> None:
        """Wait until everything has arrived."""
        while self._under_way:
            self._finish_one()

    def _send(self, step: int, values: Tensor) -> None:
        if len(self._under_way) == DEPTH:
            self._finish_one()
        header_H, flat_N = _header(step, values), flat(values)
        with lost_connections_told():
            self._under_way.append(
                (
                    _under_way(dist.isend(header_H, self._peer)),
                    _under_way(dist.isend(flat_N, self._peer, self._data)),
                    header_H,  # kept until they have left
                    flat_N,
                )
            )
        self._last = values

    def _finish_one(self) -> None:
        with lost_connections_told():
            header, numbers, *_ = self._under_way.popleft()
            header.wait()
            numbers.wait()


class Receiver:
    """The receiving end of a link: the next message is received while the last one is processed.

    After the first message, header and tensor are received together, the tensor into a ring of buffers.
    """

    def __init__(self, peer: int, data: dist.ProcessGroup, device: torch.device, *, via_host: bool = False) -> None:
        self._peer, self._data, self._device = peer, data, device
        self._buffer_device = torch.device("cpu") if via_host else device
        self._header_H = torch.zeros(_HEADER, dtype=torch.int64)
        self._layout: list[int] = []
        self._ring: deque[Tensor] = deque()
        self._works: list[dist.Work] = []

    def get(self, step: int, *, more: bool) -> Tensor | None:
        """The input of ``step``, valid for `DEPTH` further calls, or None at an early end.

        Args:
            step: which is expected.
            more: whether another one will be asked for.

        Raises:
            PeerGone: the sending process ended.
        """
        if not self._works:
            self._post()
        with lost_connections_told():
            for work in self._works:
                work.wait()
        self._works = []
        found, *layout = self._header_H.tolist()
        if found == _END:
            return None
        assert found == step, f"step {found} arrived where {step} was due"
        if not self._layout:
            self._begin_ring(layout)
            with lost_connections_told():
                dist.recv(flat(self._ring[0]), self._peer, self._data)
        assert layout == self._layout, "a block's output has changed its layout"
        values = self._ring[0]
        self._ring.rotate(-1)
        if more:
            self._post()
        return values.to(self._device)

    def _post(self) -> None:
        """Start to receive the next message."""
        with lost_connections_told():
            self._works = [_under_way(dist.irecv(self._header_H, self._peer))]
            if self._layout:
                self._works.append(_under_way(dist.irecv(flat(self._ring[0]), self._peer, self._data)))

    def _begin_ring(self, layout: list[int]) -> None:
        dtype, dims = _DTYPES[layout[0]], layout[1]
        sizes, strides = layout[2 : 2 + dims], layout[2 + _MAX_DIMS : 2 + _MAX_DIMS + dims]
        self._layout = layout
        self._ring.extend(
            torch.empty_strided(sizes, strides, dtype=dtype, device=self._buffer_device) for _ in range(DEPTH)
        )


def _under_way(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this process is not in the group"
    return work


def is_dense(values: Tensor) -> bool:
    """Whether its elements fill one contiguous piece of memory, in any order."""
    order = sorted(range(values.dim()), key=lambda axis: (values.stride(axis), values.shape[axis]))
    return values.permute(order[::-1]).is_contiguous()


def flat(values: Tensor) -> Tensor:
    """A dense tensor's elements in memory order, as a view."""
    return values.as_strided((values.numel(),), (1,))


def _header(step: int, values: Tensor) -> Tensor:
    padding = [0] * (_MAX_DIMS - values.dim())
    return torch.tensor(
        [step, _DTYPES.index(values.dtype), values.dim(), *values.shape, *padding, *values.stride(), *padding]
    )
