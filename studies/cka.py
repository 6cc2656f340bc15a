"""CKA (``evaluate --cka OTHER``): similarity of the features of two runs, for every two of their blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import Tensor

from consts import PLOT_DIR, TEST, block_name
from datamodules.split import at_most
from diagnostics.features import block_grams, gram_cka
from engine.observers import CKA_IMAGES
from engine.trained import Trained
from reports.heat_map import draw_similarity
from utils import printable


def study(run: Trained, other: Trained) -> Iterator[str]:
    """Write ``cka_OTHER.csv`` and ``plots/cka_OTHER.svg`` into the folder of ``run``, and yield the table.

    The test images are those that ``--diagnostics cka`` uses in a run without a validation split; each network gets
    them normalised as in its own training.
    """
    rows, columns = (
        block_grams(each.method, each.feed(at_most(each.splits.test, each.splits.spec.num_classes, CKA_IMAGES)))
        for each in (run, other)
    )
    values = cka_matrix(rows, columns)
    name = other.folder.path.resolve().name
    stem = f"cka_{safe_name(name)}"
    blocks = [block_name(index) for index in range(len(columns))]
    run.write_table(
        f"{stem}.csv", ["block", *blocks], ([block_name(index), *line] for index, line in enumerate(values))
    )
    plot = f"{PLOT_DIR}/{stem}.svg"
    with run.folder.writing(plot):
        draw_similarity(values, "block of this run", f"block of {printable(name)}", run.folder.path / plot)
    yield f"Linear CKA on {len(rows[0])} {TEST} images; rows: blocks of this run, columns: of {printable(name)}"
    yield from table(values)
    yield f"  written: {run.folder.path / f'{stem}.csv'}, {run.folder.path / plot}"


def cka_matrix(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> list[list[float]]:
    """`gram_cka` of every Gram matrix in ``rows`` with every one in ``columns``."""
    return [[gram_cka(x_PP, y_PP) for y_PP in columns] for x_PP in rows]


def table(values: Sequence[Sequence[float]]) -> Iterator[str]:
    """Similarities as text, one line for each row, below the column indices."""
    yield " " * 10 + "".join(f"{index:>6}" for index in range(len(values[0])))
    for index, line in enumerate(values):
        yield f"  {block_name(index)}" + "".join(f"{value:6.2f}" for value in line)


def safe_name(name: str) -> str:
    """``name`` with other characters than ASCII letters, digits, ``._-`` replaced, cut to 100 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:100]
