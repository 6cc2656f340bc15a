"""Tables, figures and HTML pages from run folders. This package reads files only and never imports torch.

matplotlib is imported when a figure is drawn, so importing this package does not delay training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from consts import PLOT_DIR, REPORT_FILE
from reports.csv_runs import read_csv
from reports.leaderboard import markdown
from reports.records import RECORDS, is_table
from reports.runs import Run, find_runs, load_run
from utils import UserError, write_text

DEFAULT_OUT = "report"
BOARD_FILE = "leaderboard.md"


def refresh(run_folder: Path) -> None:
    """Redraw the plots and the page of a run, running or finished.

    Raises:
        UserError: the folder does not exist.
        OSError: the files cannot be written.
    """
    from reports.canvas import write_bytes
    from reports.figures import run_pictures
    from reports.page import write_page

    if not run_folder.is_dir():
        raise UserError(f"{run_folder}: no such folder")
    run = load_run(run_folder)
    pictures = run_pictures(run)
    plots = run_folder / PLOT_DIR
    plots.mkdir(exist_ok=True)
    for name, svg in pictures.items():
        write_bytes(plots / f"{name}.svg", svg.encode())
    write_page([run], run_folder / REPORT_FILE, run.name, pictures)


def load(paths: Sequence[Path]) -> list[Run]:
    """The runs at ``paths``: run folders, folders that hold some, tables, and studies that keep one (`records`).

    Raises:
        UserError: a path holds no run, or cannot be read.
    """
    tables: list[Path] = []
    folders: list[Path] = []
    for path in paths:
        kept = [file for file in (path / RECORDS, *sorted(path.glob(f"*/{RECORDS}"))) if is_table(file)]
        if path.suffix == ".csv" and path.is_file():
            tables.append(path)
        elif kept:
            tables += kept
        else:
            folders.append(path)
    return (find_runs(folders) if folders else []) + [run for table in tables for run in read_csv(table)]


def record(paths: Sequence[Path], table: Path) -> str:
    """Add the finished runs at ``paths`` to a table under version control, and say what was added.

    Raises:
        UserError: a path holds no run, or the table cannot be read or written.
    """
    from reports.records import add

    runs = find_runs(paths)
    return f"{table}: {add(runs, table)} of {len(runs)} runs added"


def report(paths: Sequence[Path], out: Path | None = None) -> str:
    """Compare runs: write page, figure and table into ``out``, and return the table for the terminal.

    Args:
        paths: run folders, folders that hold some, or tables (``runs.csv``) that an earlier report wrote.
        out: folder for the files, made if need be; ``report`` in the current directory if None.

    Raises:
        UserError: a path holds no run, or ``out`` cannot be written.
    """
    from reports.canvas import render, write_bytes
    from reports.overview import comparison_figure, comparison_pictures
    from reports.page import write_page
    from reports.table import comparison_table, write_csv

    runs = load(paths)
    out = Path(DEFAULT_OUT) if out is None else out
    title = runs[0].name if len(runs) == 1 else f"Comparison of {len(runs)} runs"
    pictures = comparison_pictures(runs)
    files = [out / name for name in (REPORT_FILE, "runs.csv", "comparison.png", *(f"{name}.svg" for name in pictures))]
    board = markdown(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_page(runs, files[0], title)
        write_csv(runs, files[1])
        write_bytes(files[2], render(comparison_figure(runs), "png"))
        for file, svg in zip(files[3:], pictures.values(), strict=True):
            write_bytes(file, svg.encode())
        if board:
            files.append(out / BOARD_FILE)
            write_text(files[-1], f"# Leaderboard\n\n{board}\n")
    except OSError as error:
        raise UserError(f"{out}: cannot write the report ({error.strerror})") from error
    shown = [comparison_table(runs), ""] + ([f"Full length:\n\n{board}", ""] if board else [])
    return "\n".join([*shown, "Written:", *(f"  {file}" for file in files)])
