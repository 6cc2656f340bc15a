"""Sparse parities: the label says whether an odd number of some unknown bits is 1.

Uniform bits: no subset of the parity's bits is correlated with the label, so that gradients of different parities can
hardly be told apart (Shalev-Shwartz, Shamir, Shammah 2017, arXiv 1703.07950). Biased bits: each bit of the parity is
correlated with it, which makes parities of few bits learnable (Malach, Shalev-Shwartz 2019, arXiv 1910.11923). The
mixture of Daniely and Malach (2020, arXiv 2002.07400): half of the images are uniform, in the other half the bits of
the parity are all equal and the rest is uniform; a network with two layers learns it, and linear methods do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.theory._draw import Problem, of_bits
from sections.datasets.parity import ParityArgs


def problem(args: ParityArgs, generator: torch.Generator) -> Problem:
    """Images of ``--num_bits`` bits. Which of them the parity is of is drawn first."""
    chosen_K = torch.randperm(args.num_bits, generator=generator)[: args.parity_size]
    probability = args.bit_probability if args.parity_inputs == "biased" else 0.5

    def draw(count: int) -> tuple[Tensor, Tensor]:
        bits_PD = torch.rand(count, args.num_bits, generator=generator) < probability
        if args.parity_inputs == "mixture":
            equal_P, value_P = (torch.rand(2, count, generator=generator) < 0.5).unbind()
            bits_PD[:, chosen_K] = torch.where(equal_P[:, None], value_P[:, None], bits_PD[:, chosen_K])
        return of_bits(bits_PD), bits_PD[:, chosen_K].sum(1) % 2

    return Problem(("even", "odd"), draw)
