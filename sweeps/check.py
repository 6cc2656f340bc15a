"""What can be known to be wrong with a sweep before its first trial."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping

import cli
from cli.settings import known_names
from consts import ACCURACY, LOSS, NETWORKS, PROGRAM, TEST, TRAIN, VAL, block_name, metric_name
from schemas import Args, method_sections
from sections.heads import Heads
from sweeps.file import SweepFile
from sweeps.space import Scalar, combinations, to_text
from utils import UsageError, did_you_mean

MAX_CHECKED = 200  # combinations; parsing one takes some milliseconds
_OURS = ("path", "name", "resume", "print_config")  # set by the sweep itself


def words_of(file: SweepFile, values: Mapping[str, Scalar]) -> list[str]:
    """The words behind ``main.py`` of a trial with ``values``; what is fixed stands first."""
    fixed = {name: each.choices[0] for name, each in file.parameters.items() if each.is_fixed}
    return [*file.fixed_words, *(f"--{name}={to_text(value)}" for name, value in (fixed | dict(values)).items())]


def check(file: SweepFile, engine: str = "local") -> None:
    """Refuse a sweep whose trials could not start with ``engine``, or would not have its metric.

    Raises:
        UsageError: one line that names the file and what is wrong.
    """
    trials = [(values, words_of(file, values)) for values in combinations(file.varied, MAX_CHECKED)]
    try:
        rules = {name: section for _, words in trials for name, section in cli.rules_of(words).items()}
    except UsageError as error:
        raise UsageError(f"{file.path}: {error}") from None
    known = known_names(rules) | set(method_sections()) | {"config"}
    for name in file.parameters:
        plain = name.replace("-", "_")
        if plain in _OURS:
            raise UsageError(f"{file.path}: parameters.{name}: a sweep sets this flag itself")
        if plain not in known:
            raise UsageError(f"{file.path}: unknown flag parameters.{name}{did_you_mean(plain, known)}")
    for values, words in trials:
        try:
            args = parse(words)
        except UsageError as error:
            shown = " ".join(f"--{name}={to_text(value)}" for name, value in values.items())
            raise UsageError(f"{file.path}: {error} (in the trial with {shown})") from None
        if problem := _metric_problem(file.spec.metric.name, args):
            raise UsageError(f"{file.path}: metric.name {file.spec.metric.name}: {problem}")
        if engine == "ray" and args.run.device.partition(":")[2] not in ("", "0"):
            raise UsageError(
                f"{file.path}: --device {args.run.device}: with --engine ray every trial sees one GPU, its own; "
                "allowed is auto, cpu, cuda or cuda:0"
            )


def parse(words: list[str]) -> Args:
    """The settings of a trial.

    Raises:
        UsageError: they are refused; the message is the one that the user would see.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            command = cli.parse(words)
    except SystemExit:
        raise UsageError(shown.getvalue().strip().removeprefix(f"{PROGRAM}: error: ")) from None
    if command.args is None or command.verb != "train":
        raise UsageError("a trial must be a training run")
    return command.args


def _metric_problem(name: str, args: Args) -> str | None:
    """Why a run with these settings would not log the metric; None where it may.

    Methods name some of their training metrics themselves, so there only the form can be checked; a trial that ends
    an epoch without the metric ends the sweep.
    """
    blocks = range(NETWORKS[args.model.model].num_blocks)
    splits = [TRAIN, TEST, *([VAL] if args.data.val_size else [])]
    trainable = [index for index in blocks if index >= args.method.first_trainable_block % len(blocks)]
    logged = trainable if Heads in args.method.GROUPS else [blocks[-1]]
    known = [metric_name(split, quantity) for split in splits for quantity in (LOSS, ACCURACY)]
    known += [metric_name(split, quantity, i) for split in splits for quantity in (LOSS, ACCURACY) for i in logged]
    if name in known or re.fullmatch(rf"{TRAIN}/(block_\d\d/)?(?!{LOSS}$|{ACCURACY}$)\w+", name):
        return None
    split, _, quantity = name.partition("/")
    if split == VAL and not args.data.val_size and f"{TEST}/{quantity}" in known:
        return "no trial logs it; it needs --val_size"
    if re.fullmatch(rf"\w+/block_\d\d/({LOSS}|{ACCURACY})", name):
        return f"no trial logs it; blocks with a loss are {', '.join(map(block_name, logged))}"
    if split == VAL and not args.data.val_size:  # a mistyped name: the nearest of those that it could have
        known += [f"{VAL}/{quantity}" for quantity in (LOSS, ACCURACY)]
    return f"no trial logs it{did_you_mean(name, known)}; there are {', '.join(known[: 2 * len(splits)])}, ..."
