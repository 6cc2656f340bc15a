"""Fills what was measured into the README and into ``configs/``, from the tables that studies keep: ``make docs``.

The README's leaderboard stands between two comments; a file of settings has one line, ``# Measured: ...``, above its
command. With ``--check`` nothing is written, and the exit code is 1 where a file is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import cli  # noqa: E402
from reports import load  # noqa: E402
from reports.columns import TRAIN_TIME  # noqa: E402
from reports.groups import BOOKKEEPING, Group, group_runs  # noqa: E402
from reports.leaderboard import expected, is_full_length, markdown  # noqa: E402
from reports.records import RECORDS, is_table  # noqa: E402
from reports.runs import Run  # noqa: E402
from schemas import HARMLESS  # noqa: E402

STUDIES = ROOT / "experiments" / "studies"
START, END = "<!-- leaderboard: made by make docs -->", "<!-- end of the leaderboard -->"
MEASURED, COMMAND = "# Measured: ", "# python "
# What may differ between a file of settings and a run of it: CIFAR-10 was there as a tree of JPEG files.
ELSEWHERE = frozenset(HARMLESS) | BOOKKEEPING | {"dataset", "precision"}
DATA = {"cifar10": "CIFAR-10", "folder": "JPEG copy of CIFAR-10"}


def full_runs() -> list[Run]:
    """The runs on all training images that the studies keep (`reports.leaderboard.is_full_length`)."""
    tables = [path for path in sorted(STUDIES.glob(f"*/{RECORDS}")) if is_table(path)]
    return [run for run in load(tables) if is_full_length(run)]


def settings_in(file: Path) -> dict[str, object]:
    """What a file of settings resolves to."""
    args = cli.parse(["--config", str(file)]).args
    assert args is not None
    return args.flat()


def matching(settings: dict[str, object], groups: Sequence[Group]) -> Group | None:
    """The runs that a file of settings describes."""
    for group in groups:
        shared = [name for name in group.settings if name in settings and name not in ELSEWHERE]
        if all(group.settings[name] == settings[name] for name in shared):
            return group
    return None


def line_of(group: Group) -> str:
    """What the runs of a group reached, on which data and machine, and how long one of them took."""
    run, time = group.counted[0], group.spread("train_cpu_s")
    seeds = f"{len(group.counted)} seed" + "s" * (len(group.counted) > 1)
    data = DATA.get(run.text("dataset"), run.text("dataset"))
    took = f"{TRAIN_TIME.show(time.mean)} of work in training" if time and time.mean else "trained"
    machine = f"{run.text('machine')}, {run.text('precision')}"
    return f"{expected(group)} ({data}, {seeds}); {took} on {machine}."


def filled_config(text: str, group: Group | None) -> str:
    """A file of settings with its line."""
    lines = [line for line in text.splitlines() if not line.startswith(MEASURED)]
    place = next(number for number, line in enumerate(lines) if line.startswith(COMMAND))
    lines.insert(place, f"{MEASURED}{'not here in full.' if group is None else line_of(group)}")
    return "\n".join(lines) + "\n"


def filled_readme(text: str, runs: Sequence[Run]) -> str:
    """The README with the leaderboard of ``runs``."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{markdown(runs)}\n{END}{after}"


def files() -> Iterator[tuple[Path, str]]:
    """Every file, and the text it should have."""
    runs = full_runs()
    groups = group_runs(runs)
    readme = ROOT / "README.md"
    yield readme, filled_readme(readme.read_text(encoding="utf-8"), runs)
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if path.parent.name != "sweeps":
            yield path, filled_config(path.read_text(encoding="utf-8"), matching(settings_in(path), groups))


def main() -> int:
    """Write the files, or with ``--check`` compare them."""
    stale = [(path, text) for path, text in files() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path, _ in stale:
            print(f"{path.relative_to(ROOT)} is not current: run make docs", file=sys.stderr)
        return int(bool(stale))
    for path, text in stale:
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
