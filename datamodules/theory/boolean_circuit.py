"""Boolean circuits that are binary trees: each gate has two inputs, and each bit goes into one gate.

Malach and Shalev-Shwartz (2019, arXiv 1910.11923) prove that a network of the tree's shape, trained layer by layer,
finds such a circuit where every gate is correlated with the label, and that learning fails where none is. Images are
drawn from the label down: the label is fair, and every gate's inputs are drawn given its output. So the correlation is
a setting. With c the correlation of a gate with each of its inputs (up to the sign), a bit's with the label is c to the
power of the depth.

An AND gate whose output is 1 has the inputs (1, 1); with output 0 it has (0, 0) with probability q = 2c - 1, and
otherwise (0, 1) or (1, 0). Uniform pairs are q = 1/3. OR is AND with all three values negated. A XOR gate has (1, 0)
with probability 1/2 + c where its output is 1, and otherwise (0, 1); with output 0 it has (0, 0) or (1, 1), both fair.
NAND, NOR and XNOR negate the output.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.theory._draw import Problem, of_bits
from sections.datasets.boolean_circuit import BooleanCircuitArgs


class Level(NamedTuple):
    """The gates of one level, from left to right.

    Attributes:
        is_xor: whether they are XOR gates; otherwise AND gates.
        swaps_G: bool; of AND gates, whether all three values are negated, which makes OR gates of them.
        negates_G: bool; whether the output is negated, behind everything else.
    """

    is_xor: bool
    swaps_G: Tensor
    negates_G: Tensor

    def inputs_of(self, output_PG: Tensor, correlation: float, generator: torch.Generator) -> Tensor:
        """Draw the inputs (P, 2G) of gates with these outputs; all are bool."""
        output_PG = output_PG ^ self.negates_G ^ self.swaps_G
        chance_PG, side_PG = torch.rand(2, *output_PG.shape, generator=generator)
        if self.is_xor:
            left_PG = torch.where(output_PG, chance_PG < 0.5 + correlation, chance_PG < 0.5)
            right_PG = left_PG ^ output_PG
        else:
            one_PG = ~output_PG & (chance_PG >= 2 * correlation - 1)  # exactly one input is 1
            is_left_PG = side_PG < 0.5
            left_PG, right_PG = output_PG | (one_PG & is_left_PG), output_PG | (one_PG & ~is_left_PG)
        return torch.stack((left_PG ^ self.swaps_G, right_PG ^ self.swaps_G), 2).flatten(1)

    def outputs_of(self, input_PI: Tensor) -> Tensor:
        """The outputs (P, G) of inputs (P, 2G)."""
        left_PG, right_PG = input_PI[:, ::2] ^ self.swaps_G, input_PI[:, 1::2] ^ self.swaps_G
        output_PG = left_PG ^ right_PG if self.is_xor else left_PG & right_PG
        return output_PG ^ self.swaps_G ^ self.negates_G


def circuit(args: BooleanCircuitArgs, generator: torch.Generator) -> list[Level]:
    """The levels of a random circuit, the one gate that gives the label first."""
    is_xor, levels = args.circuit_gates == "xor", []
    for level in range(args.circuit_depth):
        swaps_G, negates_G = (torch.rand(2, 2**level, generator=generator) < 0.5).unbind()
        levels.append(Level(is_xor, swaps_G & (not is_xor), negates_G))
    return levels


def problem(args: BooleanCircuitArgs, generator: torch.Generator) -> Problem:
    """Images of 2 to the power ``--circuit_depth`` bits; the bits of a gate are neighbours."""
    levels = circuit(args, generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels_P = torch.rand(count, generator=generator) < 0.5
        bits_PD = labels_P[:, None]
        for level in levels:
            bits_PD = level.inputs_of(bits_PD, args.correlation, generator)
        return of_bits(bits_PD), labels_P.long()

    return Problem(("0", "1"), draw)
