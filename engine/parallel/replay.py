"""A buffer between two stages that run without waiting for each other: it drops batches or returns them again.

Belilovsky et al., "Decoupled Greedy Learning of CNNs" (ICML 2020), section 4. Among the batches that were read least,
the newest is read; a full buffer overwrites the oldest. (The published code does not wrap the index of the
slot to be written next, and takes the oldest batch for the newest; this is the rule as the paper states it.)
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ReplayBuffer(Generic[Value]):
    """The last ``size`` values, with how often each was read. None marks the end, and is returned once.

    Args:
        size: values that it keeps, at least 1.
    """

    def __init__(self, size: int) -> None:
        self._slots: deque[list] = deque(maxlen=size)  # [value, times read], oldest first
        self._has_ended = False
        self._changed = threading.Condition()

    def put(self, value: Value | None, block: bool = True, timeout: float | None = None) -> None:
        """Add a value, in place of the oldest if the buffer is full; never blocks."""
        with self._changed:
            if value is None:
                self._has_ended = True
            else:
                self._slots.append([value, 0])
            self._changed.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Value | None:
        """The newest of the values that were read least; blocks only while there has been none.

        Raises:
            queue.Empty: there was none within ``timeout`` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._has_ended, timeout if block else 0)
            if self._has_ended:
                self._has_ended = False
                return None
            if not self._slots:
                raise queue.Empty
            least = min(count for _, count in self._slots)
            slot = next(slot for slot in reversed(self._slots) if slot[1] == least)
            slot[1] += 1
            return slot[0]
