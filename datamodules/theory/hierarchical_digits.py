"""Digits that are generated level by level, after the model of Malach and Shalev-Shwartz (2018, arXiv 1803.09522).

There an image begins as a small map of classes, and every place is replaced by a patch of finer classes, drawn from the
distribution of its class and independent of the rest. Here

1. a digit is a map of 4 x 4 strokes: `GLYPHS`, at one of three columns;
2. a stroke is 4 x 4 pixels: lines from a junction at one of four places to the sides that it reaches;
3. with three levels a pixel is 2 x 2 finer ones: if it is white all of them or all but one, otherwise none or one.

The strokes, the places and the sizes are ours. All patches of all classes of a level are different, so that every image
comes about in one way, and has one label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.theory._draw import ON, Problem
from sections.datasets.hierarchical_digits import HierarchicalDigitsArgs

GLYPHS = (
    "┌┐││││└┘", " ╷ │ │ ╵", "╶┐ │┌┘└╴", "╶┐╶┤ │╶┘", "╷╷└┤ │ ╵", "┌╴└┐ │╶┘", "┌╴├┐││└┘", "╶┐ │ │ ╵", "┌┐├┤││└┘",
    "┌┐└┤ │╶┘",
)  # fmt: skip
STROKES = " ╷╵╶╴│┌┐└┘├┤"
# The sides that a stroke reaches: up, down, left, right.
_SIDES = {
    " ": "", "╷": "d", "╵": "u", "╶": "r", "╴": "l", "│": "ud", "┌": "dr", "┐": "dl", "└": "ur", "┘": "ul",
    "├": "udr", "┤": "udl",
}  # fmt: skip
COLUMNS = 3  # at which a digit can begin


def tiles(stroke: str) -> list[Tensor]:
    """The different 4 x 4 patches (bool) of a stroke."""
    found: list[Tensor] = []
    for row in (1, 2):
        for column in (1, 2):
            tile = torch.zeros(4, 4, dtype=torch.bool)
            for side in _SIDES[stroke]:
                if side in "ud":
                    tile[slice(0, row + 1) if side == "u" else slice(row, 4), column] = True
                else:
                    tile[row, slice(0, column + 1) if side == "l" else slice(column, 4)] = True
            if not any(torch.equal(tile, other) for other in found):
                found.append(tile)
    return found


def fine_patches() -> Tensor:
    """The five 2 x 2 patches of a black pixel, then those of a white one: (2, 5, 2, 2), bool."""
    dark_522 = torch.cat((torch.zeros(1, 4), torch.eye(4))).bool().view(5, 2, 2)
    return torch.stack((dark_522, ~dark_522))


def strokes_of() -> Tensor:
    """The map of every digit at every column, as positions in `STROKES`: (10, 3, 4, 4), int64."""
    maps = torch.zeros(len(GLYPHS), COLUMNS, 4, 4, dtype=torch.long)
    for digit, glyph in enumerate(GLYPHS):
        strokes = torch.tensor([STROKES.index(stroke) for stroke in glyph]).view(4, 2)
        for column in range(COLUMNS):
            maps[digit, column, :, column : column + 2] = strokes
    return maps


def problem(args: HierarchicalDigitsArgs, generator: torch.Generator) -> Problem:
    """Images of 16x16 pixels, or with three levels of 32x32."""
    lists = [tiles(stroke) for stroke in STROKES]
    counts_K = torch.tensor([len(each) for each in lists])
    tiles_KV44 = torch.stack([torch.stack([each[i % len(each)] for i in range(4)]) for each in lists])
    maps, fine_2522 = strokes_of(), fine_patches()

    def replaced(kinds_PHW: Tensor, choices_PHW: Tensor, patches: Tensor) -> Tensor:
        """Each place of a map by a patch of its kind."""
        side = patches.shape[-1]
        count, height, width = kinds_PHW.shape
        return patches[kinds_PHW, choices_PHW].transpose(2, 3).reshape(count, height * side, width * side)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels_P = torch.randint(len(GLYPHS), (count,), generator=generator)
        strokes_PHW = maps[labels_P, torch.randint(COLUMNS, (count,), generator=generator)]
        chance_PHW = torch.rand(strokes_PHW.shape, generator=generator)
        image_PHW = replaced(strokes_PHW, (chance_PHW * counts_K[strokes_PHW]).long(), tiles_KV44)
        if args.digit_levels == 3:
            choice_PHW = torch.randint(5, image_PHW.shape, generator=generator)
            image_PHW = replaced(image_PHW.long(), choice_PHW, fine_2522)
        return (image_PHW.to(torch.uint8) * ON)[..., None], labels_P

    return Problem(tuple("0123456789"), draw)
