"""Networks whose states settle: connections lead up and down with the same weights.

The states s_i of the settling blocks maximise ``Phi - sum_i |s_i|^2`` within 0 and 1, with ``Phi = sum_i <s_i,
g_i(s_{i-1})> + top``, sums over all values and images. g_i is what block i makes of the state below it without its
activation: a convolution, dropout and a pool. So a state's input is ``dPhi/ds_i = g_i(s_{i-1}) + J_{i+1}^T s_{i+1}``,
and the state that it asks for is `activity` of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layers.replay import RandomState
from methods._base import wide
from methods._nudge import Beta
from model import Backbone, Block, layers_of
from objectives.classification import cross_entropy
from sections.rules.hopfield import HopfieldArgs


def activity(u: Tensor) -> Tensor:
    """``clip(u / 2, 0, 1)``: the state of a unit with the input u."""
    return (u / 2).clamp(0, 1)


class HardSigmoid(nn.Module):
    """`activity` as a layer; `Dynamics` leaves it out, since states get inputs from above as well."""

    def forward(self, u: Tensor) -> Tensor:
        """Return values of the same shape."""
        return activity(u)


class SettlingBackbone(Backbone):
    """Blocks whose states settle before the classifier reads the last of them.

    Args:
        blocks: in order.
        classifier: makes logits of the last block's state.
        first: the blocks before this one only pass forward.
        args: of the dynamics.
    """

    def __init__(self, blocks: Sequence[Block], classifier: nn.Module, first: int, args: HopfieldArgs) -> None:
        super().__init__(blocks, classifier)
        self.first, self.args = first, args

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, N) logits of the free equilibrium; no gradient leads through it."""
        # Settling takes derivatives, which tensors of an inference mode around it do not have: a copy does.
        with torch.inference_mode(False), torch.autocast(x_BCHW.device.type, enabled=False):
            dynamics = Dynamics(self, wide(x_BCHW).clone())
            states, _ = dynamics.settle(dynamics.states, self.args.free_steps)
            return dynamics.run(-1, states[-1])


class Dynamics:
    """The settling blocks and the classifier on one batch, with one dropout in all passes.

    Args:
        network: what settles.
        x_BCHW: images, in float32 or wider.
        y_B: their labels, if the loss is to nudge.
        smoothing: of the labels.

    Attributes:
        states: of the pass forward, where the free phase begins; a place counts from the first settling block.
    """

    def __init__(
        self, network: SettlingBackbone, x_BCHW: Tensor, y_B: Tensor | None = None, smoothing: float = 0.0
    ) -> None:
        self.args, self.units, self.y_B, self.smoothing = network.args, network.parts[network.first :], y_B, smoothing
        self.states: list[Tensor] = []
        self._random: list[RandomState] = []
        with torch.no_grad():
            for block in network.blocks[: network.first]:
                x_BCHW = block(x_BCHW)
            self.x_BCHW = x_BCHW
            for place in range(len(self.units)):
                self._random.append(RandomState.now(x_BCHW.device))
                if place < len(self.units) - 1:
                    self.states.append(activity(self._passed(place, self.below(self.states, place))))

    def below(self, states: list[Tensor], place: int) -> Tensor:
        """What the block at ``place`` sees."""
        return states[place - 1] if place else self.x_BCHW

    def run(self, place: int, x: Tensor) -> Tensor:
        """The input that the block at ``place`` makes of ``x`` for its units, or at -1 the classifier's logits."""
        with self._random[place].again():
            return self._passed(place, x)

    def _passed(self, place: int, x: Tensor) -> Tensor:
        for layer in layers_of(self.units[place]):
            x = x if isinstance(layer, HardSigmoid) else layer(x)
        return x

    def top(self, state: Tensor, beta: Beta | None) -> Tensor | None:
        """What the output adds to Phi, summed over the images; None where it takes no part."""
        if beta is None and not self.args.output_feedback:
            return None
        logits_BN = self.run(-1, state)
        value = logits_BN.logsumexp(1).sum() if self.args.output_feedback else logits_BN.new_zeros(())
        if beta is None or self.y_B is None:
            return value
        return value - beta * cross_entropy(logits_BN, self.y_B, self.smoothing, "sum")

    def settle(self, states: list[Tensor], steps: int, beta: Beta | None = None) -> tuple[list[Tensor], Tensor]:
        """The states after some sweeps, and how far the last one moved them, over their norm.

        A sweep goes from the top down, and every state moves towards what its inputs ask of it, those from above being
        where they have moved to. So the same graph of a block, one at a time, gives it its input from below and the
        block below its input from above.
        """
        before = states
        for _ in range(steps):
            before, states = states, self._swept(states, beta)
        moved = [new - old for new, old in zip(states, before, strict=True)]
        squares = [torch.stack([part.square().sum() for part in parts]).sum() for parts in (moved, states)]
        return states, (squares[0] / squares[1].clamp(min=torch.finfo(squares[1].dtype).tiny)).sqrt()

    def _swept(self, states: list[Tensor], beta: Beta | None) -> list[Tensor]:
        states = [state.detach().requires_grad_() for state in states]
        with torch.enable_grad():
            top = self.top(states[-1], beta)
            above = torch.zeros_like(states[-1]) if top is None else torch.autograd.grad(top, states[-1])[0]
            for place in reversed(range(len(states))):
                below = self.below(states, place)
                driven = self.run(place, below)
                with torch.no_grad():
                    wanted = activity(driven + above)
                    states[place] = states[place] + self.args.settle_rate * (wanted - states[place])
                if place:
                    (above,) = torch.autograd.grad(driven, below, states[place])
        return states

    def teach(self, states: list[Tensor], beta: Beta | None, factor: Beta) -> None:
        """Add ``factor`` times the gradient of Phi in all weights, at these states, one graph at a time."""
        states = [state.detach() for state in states]
        if (top := self.top(states[-1], beta)) is not None:
            (factor * top).backward()
        for place, state in enumerate(states):
            self.run(place, self.below(states, place)).backward(factor * state)
