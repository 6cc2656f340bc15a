"""HTML page of one or several runs: a single self-contained file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from consts import CONFUSION, FILTERS, PLOT_DIR, RECONSTRUCTIONS
from reports.blocks import block_table, difference_table
from reports.canvas import GRID, INK, PALETTE, PAPER
from reports.columns import COLUMNS, progress, show_blocks, status
from reports.figures import run_pictures
from reports.groups import Group, differing, group_runs
from reports.overview import comparison_pictures
from reports.runs import Run
from reports.table import HEADER, group_cells
from utils import write_text

CAPTIONS = {
    "loss": "Loss of the network: on the training images the mean over the epoch, on the others at its end.",
    "accuracy": "Accuracy of the network: on the training images the mean over the epoch, on the others at its end.",
    "blocks": "Test accuracy of the classifier on top of every block: by epoch, and after the last one.",
    "ranking": "Test accuracy after the last epoch, best first: the mean over the runs of a group, and their range.",
    "curves": "The network by epoch; bands reach from the lowest to the highest run of a group.",
    "parallel": "Every trial as a line through its settings to its result; the best ones are dark.",
    "importance": "Importance of each setting for reaching the best trials (PED-ANOVA).",
    "alignment": "Gradients of every block against back-propagation's, at the same weights and on the same training "
    "images, without dropout: cosine of the angle, and ratio of the norms.",
    "probes": "Accuracy on held-out images of linear classifiers fitted in closed form to every block's features of "
    "training images: by epoch, and after the last one beside the block's own classifier.",
    "cka": "Similarity of the blocks' features of held-out images (linear CKA) after the last epoch.",
    "against": "Test accuracy after the last epoch against the number that was varied most; other settings as lines.",
    "blocks_compared": "The blocks after the last epoch, by group; bands reach from its lowest to its highest run.",
    "comparison": "Runs with the same settings but the seed share a colour: the line is their mean, the band reaches "
    "from the lowest to the highest. A thin line across is a network without classifiers inside.",
}
# Colours of a figure that the page sets itself, because they must suit a light and a dark background.
_VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)", PALETTE[0]: "var(--blue)"}
_TEMPLATE = Path(__file__).with_name("template.html")
_INTERNAL_ID = re.compile(r' id="[A-Za-z.]\w*_\d{1,4}"')  # names of matplotlib's groups, the same in every figure


class Cell(NamedTuple):
    """Text, and the value to sort by if it is not the text itself."""

    text: str
    value: float | str | None = None


def write_page(
    runs: Sequence[Run],
    path: Path,
    title: str,
    pictures: Mapping[str, str] | None = None,
    tables: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> None:
    """Write the page of ``runs``.

    Args:
        runs: one run or several.
        path: file to write.
        title: heading of the page.
        pictures: SVG text of its figures by name, if already drawn.
        tables: more tables by heading, shown first; the first row of each is its header.
    """
    if pictures is None:
        pictures = run_pictures(runs[0]) if len(runs) == 1 else comparison_pictures(runs)
    figures = f'<div class="figures">{"".join(_figure(name, svg) for name, svg in pictures.items())}</div>\n'
    more = "".join(f"<h2>{escape(name)}</h2>\n{_texts(rows)}" for name, rows in (tables or {}).items())
    body = more + _one_run(runs[0], figures) if len(runs) == 1 else more + _several_runs(runs, figures)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.substitute(title=escape(title), body=f"<h1>{escape(title)}</h1>\n{body}"))


def inline_svg(svg: str) -> str:
    """An SVG file as an element of a page, in the page's colours."""
    svg = _INTERNAL_ID.sub("", svg[svg.index("<svg") :])
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def _figure(name: str, svg: str) -> str:
    return f"<figure>{inline_svg(svg)}<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>\n"


def _one_run(run: Run, figures: str) -> str:
    words = [run.text(key) for key in ("method", "model", "dataset")]
    figures += _drawings(run.folder)
    state = ", ".join([*filter(None, words), status(run), f"epochs {progress(run)}"])
    numbers = [(column.title, column.show(run.number(column.key))) for column in COLUMNS]
    return (
        f"<p>{escape(state)}</p>\n{_problems(run.problems)}{figures}<h2>Summary</h2>\n"
        + _table(("quantity", "value"), [map(Cell, row) for row in numbers])
        + "<h2>Blocks</h2>\n<p>Shapes and receptive fields are in pixels, of a map and of the image.</p>\n"
        + _texts(block_table(run))
        + _settings("All settings", run.config)
    )


def _drawings(folder: Path) -> str:
    """The images that the run itself wrote, embedded in the page."""
    captions = {}
    for path in sorted((folder / PLOT_DIR).glob(f"{RECONSTRUCTIONS}*.png")):
        block = path.stem.removeprefix(RECONSTRUCTIONS)
        captions[path] = f"{block}: reconstruction targets of test images above, reconstructions by its decoder below."
    filters = folder / PLOT_DIR / f"{FILTERS}.png"
    if filters.exists():
        captions[filters] = (
            "Kernels of the first convolution, each scaled from its minimum (dark) to its maximum (light)."
        )
    confusion = folder / PLOT_DIR / f"{CONFUSION}.png"
    if confusion.exists():
        captions[confusion] = "Confusion matrix: predictions of the network for the test images of every class."
    figures = [
        f'<figure><img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
        for path, caption in captions.items()
    ]
    return f'<div class="figures">{"".join(figures)}</div>\n' if figures else ""


def _several_runs(runs: Sequence[Run], figures: str) -> str:
    groups = group_runs(runs)
    names = differing([group.settings for group in groups], absence_counts=True)
    shared = {name: value for name, value in groups[0].settings.items() if name not in names}
    overview = [map(Cell, group_cells(group)) for group in groups]
    settings = [[Cell(name), *(Cell(_word(group.settings, name)) for group in groups)] for name in names]
    body = (
        figures
        + "<h2>Groups</h2>\n<p>Runs with the same settings but the seed; mean ± sample standard deviation.</p>\n"
    )
    body += _table([" ".join(words).strip() for words in zip(*HEADER, strict=True)], overview)
    body += (
        "<h2>Block by block</h2>\n<p>After the last epoch, the mean over the runs of a group; in brackets the "
        "difference to the group trained with back-propagation, or else to the first.</p>\n"
    )
    body += _texts(difference_table(groups), kind="labelled")
    body += "<h2>Runs</h2>\n<p>Click a heading to sort.</p>\n" + _runs_table(groups)
    body += _problems([f"{run.name}: {problem}" for run in runs for problem in run.problems])
    if settings:
        body += "<h2>Settings in which they differ</h2>\n"
        body += _table(["setting", *(group.label for group in groups)], settings, kind="words")
    return body + _settings("Settings that all share", shared)


def _runs_table(groups: Sequence[Group]) -> str:
    header = ["run", "group", "status", "epochs", *(c.title for c in COLUMNS), "test % by block"]
    rows = []
    for group in groups:
        for run in group.runs:
            numbers = [(column, run.number(column.key)) for column in COLUMNS]
            rows.append(
                [
                    *(Cell(run.name), Cell(group.label), Cell(status(run)), Cell(progress(run), len(run.epochs))),
                    *(Cell(column.show(value), "" if value is None else value) for column, value in numbers),
                    Cell(show_blocks(run.block_accuracies())),
                ]
            )
    return _table(header, rows, kind="sortable")


def _problems(problems: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f"<ul>{items}</ul>\n" if items else ""


def _settings(title: str, settings: Mapping[str, Any]) -> str:
    table = _table(("setting", "value"), [(Cell(name), Cell(_word(settings, name))) for name in settings], kind="words")
    return f"<details><summary>{escape(title)}</summary>\n{table}</details>\n"


def _word(settings: Mapping[str, Any], name: str) -> str:
    return str(settings[name]) if name in settings else "-"


def _table(header: Sequence[str], rows: Iterable[Iterable[Cell]], kind: str = "") -> str:
    """A table, every text in it escaped; ``kind`` is its class: ``sortable`` has buttons to sort by."""
    frame = "<th><button>{}</button></th>" if kind == "sortable" else "<th>{}</th>"
    head = "".join(frame.format(escape(text)) for text in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>\n'


def _texts(rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of plain text whose first row is its heading."""
    return _table(rows[0], [map(Cell, row) for row in rows[1:]], kind)


def _cell(cell: Cell) -> str:
    sort = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    look = ' class="long"' if len(cell.text) > 40 else ""
    return f"<td{sort}{look}>{escape(cell.text)}</td>"
