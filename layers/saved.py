"""How much memory autograd keeps for the backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor


class SavedBytes:
    """Counts bytes of the storages that autograd holds, each once; the most at any time is `peak_bytes`.

    Args:
        known: tensors that are not counted, such as parameters.

    Attributes:
        hooks: the context in which the forward pass is counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._held = Counter[int]()
        self._bytes = self.peak_bytes = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def _pack(self, tensor: Tensor) -> _Saved:
        return _Saved(tensor, self)

    def count(self, storage: torch.UntypedStorage, change: int) -> None:
        """Note that autograd holds ``storage`` once more, or once less."""
        place = storage._cdata
        if place in self._known:
            return
        before = self._held[place]
        self._held[place] += change
        if bool(before) != bool(self._held[place]):
            self._bytes += change * storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._bytes)


class _Saved:
    """What autograd gets in place of a tensor: it is counted until autograd releases it."""

    def __init__(self, tensor: Tensor, counter: SavedBytes) -> None:
        self.tensor, self._counter = tensor, counter
        self._storage = tensor.untyped_storage()
        counter.count(self._storage, 1)

    def __del__(self) -> None:
        self._counter.count(self._storage, -1)
