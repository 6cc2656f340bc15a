"""Groups of runs with the same settings except the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import zip_longest
from statistics import fmean, stdev
from typing import Any

from consts import DATASETS, DONE, TRIAL
from reports.files import finite
from reports.runs import Run, printable

# Settings of seed, storage and logging, which do not define the experiment.
BOOKKEEPING = {
    "seed", "name", "path", "data_dir", "download", "wandb", "wandb_project", "wandb_group", "tensorboard",
    "log_interval", "progress_bar", "resume", "diagnostics",
}  # fmt: skip
MAX_DIGITS = 12  # of a number; beyond, it is rounded and has an exponent
MAX_VALUE_LENGTH = 40  # of a setting inside a label


@dataclass(frozen=True)
class Spread:
    """Mean, extremes, sample standard deviation (0 for one value) and number of values of a quantity over runs."""

    mean: float
    low: float
    high: float
    deviation: float
    count: int


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed.

    Attributes:
        label: the method and the settings in which groups differ, or the name given with ``--name``.
        settings: what the runs share, bookkeeping left out.
        runs: all of them.
    """

    label: str
    settings: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def counted(self) -> list[Run]:
        """The runs that enter the numbers: the finished ones, or all where none is finished."""
        return [run for run in self.runs if run.text("status") == DONE] or list(self.runs)

    @property
    def title(self) -> str:
        """The label, and the number of runs behind the numbers if there are several."""
        return self.label if len(self.counted) == 1 else f"{self.label}, {len(self.counted)} runs"

    def spread(self, key: str) -> Spread | None:
        """A number of the summaries over the runs."""
        return spread([run.number(key) for run in self.counted])

    def block_accuracies(self) -> list[Spread | None]:
        """Test accuracy in percent by block; None for a block without a classifier."""
        return [spread(values) for values in zip_longest(*(run.block_accuracies() for run in self.counted))]

    def curve(self, metric: str) -> dict[int, Spread]:
        """A metric by epoch, for the epochs that every run has that knows the metric."""
        curves = [curve for run in self.counted if (curve := run.curve(metric))]
        common = set.intersection(*map(set, curves)) if curves else set()
        found = {epoch: spread([curve[epoch] for curve in curves]) for epoch in sorted(common)}
        return {epoch: value for epoch, value in found.items() if value is not None}


def spread(values: Sequence[float | None]) -> Spread | None:
    """Statistics of the values that are there; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), min(known), max(known), stdev(known) if len(known) > 1 else 0.0, len(known))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups by final test accuracy, the best first, each with a label of its own."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        settings = _comparable(run)
        # A run without settings cannot be assigned to a group.
        together.setdefault(repr(sorted(settings.items())) if run.config else f"alone: {run.folder}", []).append(run)
    groups = [Group("", _comparable(members[0]), tuple(members)) for members in together.values()]
    groups.sort(key=_final, reverse=True)
    if given := _given_names(groups):
        return [replace(group, label=name) for group, name in zip(groups, given, strict=True)]
    names = _telling(groups)
    return _told_apart([replace(group, label=label_of(group, names)) for group in groups], names)


def _final(group: Group) -> float:
    final = group.spread("final_test_accuracy")
    return float("-inf") if final is None else final.mean


def _telling(groups: Sequence[Group]) -> list[str]:
    """The settings in which groups differ, without those that only some methods have and each has one value of."""
    by_method: dict[str, list[Group]] = {}
    for group in groups:
        by_method.setdefault(str(group.settings.get("method")), []).append(group)
    within = {name for alike in by_method.values() for name in differing([group.settings for group in alike])}
    names = differing([group.settings for group in groups])
    return [name for name in names if name in within or all(name in group.settings for group in groups)]


def _given_names(groups: Sequence[Group]) -> list[str]:
    """The ``--name`` of each group, if these are unique, else empty. Names given by a sweep are ignored."""
    names = [{printable(str(run.config.get("name") or "")) for run in group.runs} for group in groups]
    names = [set() if any(name.startswith(TRIAL) for name in found) else found for found in names]
    found = [next(iter(name)) for name in names if len(name) == 1]
    return found if len(groups) > 1 and len({*found} - {""}) == len(groups) else []


def _told_apart(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """Where labels are the same, add the settings that only some of these groups have, or else the name of a run."""
    same: dict[str, list[Group]] = {}
    for group in groups:
        same.setdefault(group.label, []).append(group)
    more = {
        label: dict.fromkeys([*names, *differing([group.settings for group in alike], absence_counts=True)])
        for label, alike in same.items()
    }
    groups = [replace(group, label=label_of(group, more[group.label])) for group in groups]
    count = Counter(group.label for group in groups)
    return [
        replace(group, label=f"{group.label} ({group.runs[0].name})") if count[group.label] > 1 else group
        for group in groups
    ]


def differing(mappings: Sequence[Mapping[str, Any]], *, absence_counts: bool = False) -> list[str]:
    """Keys whose value is not the same wherever they occur, in order of appearance.

    Args:
        mappings: settings by name.
        absence_counts: a key that only some of them have differs too.
    """
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    distinct = {
        key: {repr(mapping.get(key)) for mapping in mappings if absence_counts or key in mapping} for key in keys
    }
    return [key for key in keys if len(distinct[key]) > 1]


def _comparable(run: Run) -> dict[str, Any]:
    """The settings that can affect a result. The device counts by type only: CPU or GPU."""
    known = {key: run.summary[key] for key in ("method", "model", "dataset") if key in run.summary} | run.config
    is_own = (facts := DATASETS.get(str(known.get("dataset")))) is not None and facts.is_own
    hidden = BOOKKEEPING - {"data_dir"} if is_own else BOOKKEEPING  # the path decides what the data are
    settings = {key: value for key, value in known.items() if key not in hidden}
    if "device" in settings:
        settings["device"] = str(settings["device"]).partition(":")[0]
    return settings


def spoken(value: Any) -> str:
    """A setting's value as a person writes it: ``yes``, ``none``, ``0.00001``, ``0.5, 0.75``."""
    if value is None or value in ([], ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(spoken, value))
    if isinstance(value, float) and finite(value) is not None:
        short = f"{Decimal(f'{value:.10g}'):f}"
        return short if len(short) <= MAX_DIGITS else f"{value:.4g}"
    return str(value)


def label_of(group: Group, names: Iterable[str]) -> str:
    """``dgl learning_rate=0.1 is_direct_global``; disabled switches and unset values are omitted."""
    words = [str(group.settings.get("method", group.runs[0].name))]
    for name in names:
        value = group.settings.get(name)
        if name == "method" or value is None or value is False:
            continue
        text = spoken(value)
        text = text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."
        words.append(name if value is True else f"{name}={text}")
    return printable(" ".join(words))
