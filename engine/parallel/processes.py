"""Training in several processes: each trains one stage, or one replica of a stage or of the whole network.

Between stages only the output of the last block is sent, between replicas the gradients. Labels and augmentation are
functions of (seed, step), so every process computes them itself.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.loop.eager import Item, Worker
from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter, Totals
from engine.loop.part import Part
from engine.loop.steps import Steps
from engine.parallel.ranks import Ranks, first_set
from engine.parallel.stage import balance, joined
from engine.parallel.wire import Receiver, Sender
from engine.run.signals import StopRequest
from methods._base import Method


class Processes(Layout):
    """A process for each stage, or for each replica of one; without stages there is one of the whole network.

    Args:
        ranks: the grid of processes.
        part: what this process trains.
        steps: of the run, with the seeds of this replica.
        optimizer: the run's, which gets the state of the other stages at `collect`.
        stop: the signals that this process got; after a `run` it has those that any process got.
    """

    def __init__(
        self, ranks: Ranks, part: Part, steps: Steps, optimizer: torch.optim.Optimizer, stop: StopRequest
    ) -> None:
        self._ranks, self._part, self._steps, self._optimizer, self._stop = ranks, part, steps, optimizer, stop
        self._worker = Worker(part, steps)
        place, data, host = ranks.stage, ranks.data, ranks.shares_gpu
        device, is_last = steps.feed.device, place + 1 == ranks.num_stages
        self._receiver = Receiver(ranks.rank_of(place - 1), data, device, via_host=host) if place else None
        self._sender = None if is_last else Sender(ranks.rank_of(place + 1), data, via_host=host)
        self._busy_s = [0.0] * ranks.num_stages

    def run(self, course: Course) -> Totals:
        """As `Layout.run`; only the first stage asks ``is_stopped``. Every process gets the totals of all.

        Raises:
            PeerGone: another process ended.
        """
        meter = Meter(self._part.part_of(course.before) if self._ranks.replica == 0 else Totals())
        for step in course.steps:
            item = self._item(step, course)
            if item is None:
                break
            h_BCHW = self._worker.take(item, meter)
            if self._sender is not None and h_BCHW is not None:
                self._sender.put(step, h_BCHW)
            course.advance(step)
        if self._sender is not None:
            self._sender.flush()
        self._ranks.tell_all(None)  # before the read, which would wait for ever for what a dead process has not sent
        return self._share(meter.read())

    def _item(self, step: int, course: Course) -> Item | None:
        """The part's input at a step, or None at an early end, of which it tells the stages above."""
        if self._receiver is None:
            has_ended, h_BCHW = self._ranks.any_sibling(course.is_stopped()), None
        else:
            h_BCHW = self._receiver.get(step, more=step != course.steps[-1])
            has_ended = h_BCHW is None
        if has_ended:
            if self._sender is not None:
                self._sender.end()
            return None
        return self._worker.item(step, self._ranks.share_of(self._steps.batch(step)), h_BCHW)

    def _share(self, mine: Totals) -> Totals:
        """The totals of all stages and replicas; also exchanges signals and busy times."""
        said = self._ranks.tell_all((mine, self._worker.busy_s, self._stop.exit_code))
        self._stop.exit_code = first_set([code for _, _, code in said])
        count = self._ranks.num_replicas
        self._busy_s = [max(busy for _, busy, _ in said[first : first + count]) for first in range(0, len(said), count)]
        parts = []
        for first in range(0, len(said), count):
            replicas = [totals for totals, _, _ in said[first : first + count] if totals.num_images]
            parts.append(sum(replicas[1:], replicas[0]) if replicas else Totals())
        return joined(parts)

    @property
    def balance(self) -> float | None:
        """As `Layout.balance`."""
        return balance(self._busy_s) if self._ranks.num_stages > 1 else None

    def collect(self) -> None:
        """Copy what the other stages have learned to the leader; of several replicas, the first one's statistics.

        Raises:
            PeerGone: another process ended.
        """
        if self._ranks.num_stages == 1:  # the leader has trained all of it
            return
        mine = _state(self._part) if self._ranks.replica == 0 else None
        states = self._ranks.tell_leader(mine)
        for place, state in enumerate(states or []):
            if place and state is not None:
                _load(self._part.method, self._optimizer, state)


def _state(part: Part) -> dict[str, Any]:
    """Parameters, buffers and optimiser state of the part's blocks and their heads, on the CPU."""
    method, optimizer = part.method, part.optimizer
    modules = [module for index in part.blocks for module in (method.backbone.block(index), *method.block_heads(index))]
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = {id(value) for module in modules for value in (*module.parameters(), *module.buffers())}
    theirs = held | set(map(id, grouped))
    named = [*method.named_parameters(), *method.named_buffers()]
    slots = {
        name: {key: _on_host(value) for key, value in optimizer.state[parameter].items()}
        for name, parameter in method.named_parameters()
        if id(parameter) in theirs and parameter in optimizer.state
    }
    return {"values": {name: _on_host(value) for name, value in named if id(value) in theirs}, "slots": slots}


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _load(method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `_state` returned."""
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
