"""Layer-parallel training over processes: this one trains one stage, or one replica of it, and others the rest.

What travels is the output of a stage's last block. Labels and augmentation are functions of (seed, step), so every
process makes them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.loop.meter import Meter, Totals
from engine.parallel.ranks import Ranks, first_set
from engine.parallel.stage import Course, Item, Stage, balance, joined, part_of
from engine.parallel.wire import Receiver, Sender
from engine.run.signals import StopRequest
from methods._base import Method


class Processes:
    """A `Layout` of which this process is one stage (and replica).

    Args:
        ranks: the grid.
        stage: this process's.
        stages: the blocks of all stages.
        device: where this one trains.
        stop: the signals that this process got; in the end it has those that any got.
    """

    def __init__(
        self, ranks: Ranks, stage: Stage, stages: Sequence[range], device: torch.device, stop: StopRequest
    ) -> None:
        self._ranks, self._stage, self._stages, self._stop = ranks, stage, stages, stop
        place = ranks.stage
        self._is_last = place + 1 == ranks.num_stages
        data, host = ranks.data, ranks.shares_gpu
        self._receiver = Receiver(ranks.rank_of(place - 1), data, device, via_host=host) if place else None
        self._sender = None if self._is_last else Sender(ranks.rank_of(place + 1), data, via_host=host)
        self._busy_s = [0.0] * ranks.num_stages

    def run(self, course: Course) -> Totals:
        """As `Layout.run`; only the first stage asks ``is_stopped``. All get all totals.

        Raises:
            PeerGone: another process ended.
        """
        ranks, stage = self._ranks, self._stage
        mine = part_of(course.before, stage.blocks, is_last=self._is_last) if ranks.replica == 0 else Totals()
        meter = Meter(mine)
        for step in course.steps:
            item = self._item(step, course)
            if item is None:
                break
            h_BCHW, output = stage.train(item)
            meter.add(output, item.batch.y_B)
            if self._sender is not None:
                self._sender.put(step, h_BCHW)
            course.advance(step)
        if self._sender is not None:
            self._sender.flush()
        return self._share(meter.read())

    def _item(self, step: int, course: Course) -> Item | None:
        """The stage's input at a step, or None at an early end, which the stages above are then told of."""
        if self._receiver is None:
            has_ended, h_BCHW = self._ranks.any_sibling(course.is_stopped()), None
        else:
            h_BCHW = self._receiver.get(step, more=step != course.steps[-1])
            has_ended = h_BCHW is None
        if has_ended:
            if self._sender is not None:
                self._sender.end()
            return None
        drawn = self._ranks.share_of(course.batch(step))
        return self._stage.first_item(step, drawn) if h_BCHW is None else Item(step, self._stage.prepare(drawn), h_BCHW)

    def _share(self, mine: Totals) -> Totals:
        """The totals of all stages and replicas; also tells the others of a signal, and how long this one worked."""
        said = self._ranks.tell_all((mine, self._stage.busy_s, self._stop.exit_code))
        self._stop.exit_code = first_set([code for _, _, code in said])
        count = self._ranks.num_replicas
        self._busy_s = [max(busy for _, busy, _ in said[first : first + count]) for first in range(0, len(said), count)]
        parts = []
        for first in range(0, len(said), count):
            replicas = [totals for totals, _, _ in said[first : first + count] if totals.num_images]
            parts.append(sum(replicas[1:], replicas[0]) if replicas else Totals())
        return joined(parts)

    @property
    def balance(self) -> float:
        """As `Layout.balance`."""
        return balance(self._busy_s)

    def close(self) -> None:
        """Nothing is under way between two runs."""

    def collect(self, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Bring what the other stages learned to the leader; of several replicas the first one's statistics count.

        Raises:
            PeerGone: another process ended.
        """
        mine = _blocks_state(method, optimizer, self._stage.blocks) if self._ranks.replica == 0 else None
        said = self._ranks.tell_leader(mine)
        for place, state in enumerate(said or []):
            if place and state is not None:
                _take_over(method, optimizer, state)


def _blocks_state(method: Method, optimizer: torch.optim.Optimizer, blocks: range) -> dict[str, Any]:
    """Everything that belongs to ``blocks`` and their heads, on the CPU."""
    parts = [part for index in blocks for part in (method.backbone.block(index), *method.block_heads(index))]
    theirs = {id(value) for part in parts for value in (*part.parameters(), *part.buffers())}
    named = [*method.named_parameters(), *method.named_buffers()]
    slots = {
        name: {key: _on_host(value) for key, value in optimizer.state[parameter].items()}
        for name, parameter in method.named_parameters()
        if id(parameter) in theirs and parameter in optimizer.state
    }
    return {"values": {name: _on_host(value) for name, value in named if id(value) in theirs}, "slots": slots}


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _take_over(method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put in place what `_blocks_state` took out."""
    parameters = dict(method.named_parameters())
    held = parameters | dict(method.named_buffers())
    with torch.no_grad():
        for name, value in state["values"].items():
            held[name].copy_(value)
    for name, slots in state["slots"].items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if isinstance(value, torch.Tensor) and value.dim() else value
            for key, value in slots.items()
        }
