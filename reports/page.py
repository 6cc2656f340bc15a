"""HTML page of one or several runs: a single self-contained file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from consts import COMMAND_FILE, CONFUSION, ENVIRONMENT_FILE, FILTERS, PLOT_DIR, RECONSTRUCTIONS, REPORT_FILE
from reports.blocks import block_table, difference_table, near_back_propagation
from reports.columns import COLUMNS, progress, show_blocks, status
from reports.figures import run_pictures
from reports.files import read_json
from reports.groups import Group, differing, group_runs, spoken
from reports.headline import lead, ranking, tiles, toggles
from reports.looks import looks_of
from reports.markup import Cell, bullets, cards, command, figure, link_to, picture, table, texts
from reports.overview import comparison_cards
from reports.runs import Run, printable
from reports.table import HEADER, group_cells
from utils import write_text

CAPTIONS = {
    "accuracy": "On the training images the mean over the epoch, on the others at its end.",
    "loss": "On the training images the mean over the epoch, on the others at its end.",
    "blocks": "The classifier on top of every block.",
    "rate": "As the optimiser had it at every line of the log.",
    "throughput": "Between two lines of the log, without evaluation.",
    "parallel": "Every trial as a line through its settings to its result; the best ones are dark.",
    "importance": "Importance of each setting for reaching the best trials (PED-ANOVA).",
    "alignment": "At the same weights and on the same training images, without dropout.",
    "gradient_ratio": "On the same images; above 1 a block's gradient is longer than back-propagation's.",
    "signal_angle": "What a block receives at its output, and what back-propagation would send there; mean over the "
    "images. 90 degrees is no agreement.",
    "signal_ratio": "On the same images; above 1 a signal is longer than back-propagation's.",
    "feedback_angle": "Of the weights through which a signal goes down a block to those through which maps go up.",
    "feedback_ratio": "Above 1 the weights on the way down are the larger ones.",
    "reconstruction": "Mean square of what an inverse misses over that of what it reconstructs; mean over the epoch.",
    "probes": "Linear classifiers fitted in closed form to every block's features of training images; accuracy on "
    "held-out images.",
    "probes_last": "Linear probes beside the blocks' own classifiers.",
    "cka": "Similarity of the blocks' features of held-out images (linear CKA) after the last epoch.",
    "against": "Against the number that was varied most; other settings as lines.",
    "by_block": "After the last epoch. A thin line across is a network without classifiers inside.",
}
_TEMPLATE = Path(__file__).with_name("template.html")


def write_page(
    runs: Sequence[Run],
    path: Path,
    title: str,
    pictures: Mapping[str, str] | None = None,
    above: str = "",
) -> None:
    """Write the page of ``runs``.

    Args:
        runs: one run or several.
        path: file to write.
        title: heading of the page.
        pictures: SVG text of its figures by name, if already drawn.
        above: markup shown first, in place of who ended highest.
    """
    if pictures is None:
        pictures = run_pictures(runs[0]) if len(runs) == 1 else comparison_cards(runs)
    figures = [figure(svg, CAPTIONS.get(name, "")) for name, svg in pictures.items()]
    body = _one_run(runs[0], figures) if len(runs) == 1 else _several_runs(runs, figures, path, above)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    body = f"<h1>{escape(title)}</h1>\n{above}{body}"
    write_text(path, template.substitute(title=escape(title), body=body))


def _one_run(run: Run, figures: Sequence[str]) -> str:
    words = [run.text(key) for key in ("method", "model", "dataset")]
    state = ", ".join([*filter(None, words), status(run), f"epochs {progress(run)}"])
    numbers = [(column.title, column.show(run.number(column.key))) for column in COLUMNS]
    remarks = bullets([*run.problems, *near_back_propagation(run)])
    return (
        f"<p>{escape(state)}</p>\n{remarks}{tiles(run)}{cards(figures)}{_drawings(run.folder)}"
        + "<h2>Blocks</h2>\n<p>Shapes and receptive fields are in pixels, of a map and of the image.</p>\n"
        + texts(block_table(run))
        + _made_by(run.folder)
        + _folded("All numbers", table(("quantity", "value"), [map(Cell, row) for row in numbers]))
        + _settings("All settings", run.config)
    )


def _made_by(folder: Path) -> str:
    """The command, and with which code, versions and machine it ran; nothing where the run did not write it down."""
    facts = read_json(folder / ENVIRONMENT_FILE, [])
    try:
        typed = (folder / COMMAND_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        typed = ""
    packages = facts.get("packages")
    versions = {"python": facts.get("python")} | (packages if isinstance(packages, dict) else {})
    changed = " with uncommitted changes" if facts.get("uncommitted_changes") else ""
    rows = {
        "commit": f"{facts['commit']}{changed}" if facts.get("commit") else None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version) or None,
        "device": facts.get("device_name") and f"{facts['device_name']} ({facts.get('device')})",
        "threads": facts.get("num_threads"),
        "system": facts.get("system"),
    }
    cells = [(Cell(str(name)), Cell(printable(str(value)))) for name, value in rows.items() if value is not None]
    shown = command(f"python {printable(typed)}") if typed else ""
    shown += table(("what", "value"), cells, kind="words") if cells else ""
    return f"<h2>How it was made</h2>\n{shown}" if shown else ""


def _drawings(folder: Path) -> str:
    """The images that the run itself wrote, embedded in the page."""
    plots, found = folder / PLOT_DIR, []
    for path in sorted(plots.glob(f"{RECONSTRUCTIONS}*.png")):
        block = path.stem.removeprefix(RECONSTRUCTIONS)
        text = f"{block}: reconstruction targets of test images above, reconstructions by its decoder below."
        found.append(picture(path, text))
    if (filters := plots / f"{FILTERS}.png").exists():
        text = "Kernels of the first convolution, each scaled from its minimum (dark) to its maximum (light)."
        found.append(picture(filters, text))
    if (confusion := plots / f"{CONFUSION}.png").exists():
        text = "Confusion matrix: predictions of the network for the test images of every class."
        found.append(picture(confusion, text, natural_size=True))
    return cards(found) if found else ""


def _several_runs(runs: Sequence[Run], figures: Sequence[str], path: Path, above: str) -> str:
    groups = group_runs(runs)
    looks = looks_of([group.title for group in groups])
    numbers = range(len(groups))
    headline = "" if above else f'<p class="lead">{escape(lead(groups))}</p>\n{ranking(groups, looks)}'
    header = [" ".join(words).strip() for words in zip(*HEADER, strict=True)]
    return (
        f"{headline}{toggles(looks)}{cards(figures)}"
        + "<h2>Groups</h2>\n<p>Runs with the same settings but the seed; mean ± sample standard deviation.</p>\n"
        + table(header, [map(Cell, group_cells(group)) for group in groups], series=numbers)
        + "<h2>Block by block</h2>\n<p>After the last epoch, the mean over the runs of a group; in brackets the "
        "difference to the group trained with back-propagation, or else to the first.</p>\n"
        + texts(difference_table(groups), kind="labelled")
        + "<h2>Runs</h2>\n<p>Click a heading to sort, a name for the page of the run.</p>\n"
        + _runs_table(groups, path)
        + bullets([f"{run.name}: {text}" for run in runs for text in [*run.problems, *near_back_propagation(run)]])
        + _all_settings(groups)
    )


def _all_settings(groups: Sequence[Group]) -> str:
    """Those in which groups differ that have them both, those that all share, and those that only some rules have."""
    names = dict.fromkeys(name for group in groups for name in group.settings)
    everywhere = [name for name in names if all(name in group.settings for group in groups)]
    different = differing([group.settings for group in groups])
    partly = [name for name in names if name not in {*everywhere, *different}]
    body = ""
    if different:
        body += "<h2>Settings in which they differ</h2>\n" + _by_group(different, groups)
    shared = {name: groups[0].settings[name] for name in everywhere if name not in different}
    body += _settings("Settings that all share", shared)
    if partly:
        body += _folded("Settings that only some have", _by_group(partly, groups))
    return body


def _by_group(names: Sequence[str], groups: Sequence[Group]) -> str:
    rows = [[Cell(name), *(Cell(_word(group.settings, name)) for group in groups)] for name in names]
    return table(["setting", *(group.label for group in groups)], rows, kind="words")


def _runs_table(groups: Sequence[Group], path: Path) -> str:
    header = ["run", "group", "status", "epochs", *(c.title for c in COLUMNS), "test % by block"]
    rows, numbers = [], []
    for number, group in enumerate(groups):
        for run in group.runs:
            values = [(column, run.number(column.key)) for column in COLUMNS]
            numbers.append(number)
            rows.append(
                [
                    Cell(run.name, link=link_to(run.folder / REPORT_FILE, path)),
                    *(Cell(group.label), Cell(status(run)), Cell(progress(run), len(run.epochs))),
                    *(Cell(column.show(value), "" if value is None else value) for column, value in values),
                    Cell(show_blocks(run.block_accuracies())),
                ]
            )
    return table(header, rows, kind="sortable", series=numbers)


def _settings(title: str, settings: Mapping[str, Any]) -> str:
    rows = [(Cell(name), Cell(_word(settings, name))) for name in settings]
    return _folded(title, table(("setting", "value"), rows, kind="words"))


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def _word(settings: Mapping[str, Any], name: str) -> str:
    return spoken(settings[name]) if name in settings else ""
