"""The Random Hierarchy Model (Cagnetta et al. 2024, arXiv 2307.02129): a label, rewritten level by level.

Every level has v symbols, and m tuples of s symbols of the next level for each of them, all different, drawn once. A
class is a symbol of the top level. An image is made by replacing each symbol with one of its tuples, L times; it is a
row of ``s^L`` symbols, each of them 1 in one of v channels. There are ``n_c m^((s^L - 1) / (s - 1))`` images, equally
likely. About ``n_c m^L`` of them are enough for a deep network, whose layers find the synonyms of a level each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.theory._draw import ON, Problem
from sections.datasets.random_hierarchy import RandomHierarchyArgs


def rules(args: RandomHierarchyArgs, generator: torch.Generator) -> list[Tensor]:
    """The tuples of every level, from the top: (symbols, m, s), int64, all different."""
    v, s, found = args.hierarchy_vocabulary, args.hierarchy_branching, []
    power_S = v ** torch.arange(s - 1, -1, -1)
    for level in range(args.hierarchy_depth):
        symbols = v if level else args.hierarchy_classes
        chosen_T = torch.randperm(v**s, generator=generator)[: symbols * args.hierarchy_multiplicity]
        tuples_TS = chosen_T[:, None] // power_S % v
        found.append(tuples_TS.view(symbols, args.hierarchy_multiplicity, s))
    return found


def problem(args: RandomHierarchyArgs, generator: torch.Generator) -> Problem:
    """Images of 1 x s^L pixels and v channels."""
    levels = rules(args, generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels_P = torch.randint(args.hierarchy_classes, (count,), generator=generator)
        symbols_PD = labels_P[:, None]
        for rules_VMS in levels:
            choice_PD = torch.randint(args.hierarchy_multiplicity, symbols_PD.shape, generator=generator)
            symbols_PD = rules_VMS[symbols_PD, choice_PD].flatten(1)
        return (F.one_hot(symbols_PD, args.hierarchy_vocabulary).to(torch.uint8) * ON)[:, None], labels_P

    return Problem(tuple(map(str, range(args.hierarchy_classes))), draw)
