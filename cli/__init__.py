"""The command line: text in, validated settings out. Everything is made from `schemas`; nothing here imports torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli import code
from cli.build import (
    SHORT,
    STUDY_SWITCHES,
    evaluate_parser,
    export_parser,
    reference_parser,
    report_parser,
    sweep_parser,
    train_parser,
)  # fmt: skip
from cli.help import WORDS, help_text, split_topic
from cli.messages import explain
from cli.settings import Given, Item, check_effects, check_needs, check_resumed, find_run, read_files, read_run
from consts import CODE_SETTINGS, DATASETS, PROGRAM
from schemas import DEFAULT_METHOD, Args, DataArgs, Rules, build_args, method_sections
from sections.datasets._base import Sizes
from sections.fields import FALSE_WORDS, TRUE_WORDS
from utils import UsageError, code_file, did_you_mean

__all__ = ["Command", "args_of_run", "check_blocks", "check_same_images", "moved", "parse", "rules_of"]


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        verb: ``train``, ``print_config``, ``version``, or one of `consts.VERBS`.
        text: the command as typed, quoted for a shell.
        args: the settings; of ``train`` and ``print_config`` only.
        options: the values of the other verbs.
        warnings: lines to show before anything starts.
        values: of ``train``, where each setting comes from.
    """

    verb: str
    text: str
    args: Args | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    values: Mapping[str, Item] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> Command:
    """Turn the words after ``main.py`` into a command.

    Raises:
        UsageError: they make no sense; the message is one line.
        SystemExit: help was asked for (0), or a flag does not exist (2).
    """
    words = [_normalise(word) for word in argv]
    text = shlex.join([PROGRAM, *argv])
    if "--version" in words:
        return Command("version", text)
    if words[:1] == ["report"]:
        return Command("report", text, options=report_parser().parse_strictly(words[1:]))
    if words[:1] == ["evaluate"]:
        options = evaluate_parser().parse_strictly(words[1:])
        switches = {name: _truth(options, name, False) for name in STUDY_SWITCHES}
        return Command("evaluate", text, options=options | switches)
    if words[:1] == ["sweep"]:
        return Command("sweep", text, options=_sweep_options(words[1:]))
    if words[:1] == ["export"]:
        return Command("export", text, options=export_parser().parse_strictly(words[1:]))
    return _train_command(words, text)


def args_of_run(
    folder: Path, typed: Mapping[str, str] | None = None, warn: Callable[[str], None] = lambda line: None
) -> Args:
    """Read the settings of a run; a Python file of the user's own that it trained with is loaded (`code.of_run`).

    Args:
        folder: of the run.
        typed: files with its code that the user named beside it, by setting.
        warn: called with a line for every file that has changed since.

    Raises:
        UsageError: ``folder`` is not a run folder, its settings are not possible ones, or its code must not be run.
    """
    values, rules, warnings = read_run(folder, typed or {})
    for line in warnings:
        warn(line)
    method = _choose_method({}, values["method"].value, rules)
    return _validated(values | {"method": Item(method, "method")})


def check_blocks(command: Command, count: int) -> list[str]:
    """Check a training command once its network is built, where only that showed how many blocks it has.

    Returns:
        Warnings that the command does not have yet.

    Raises:
        UsageError: its settings do not suit ``count`` blocks, or a flag has no effect with so many.
    """
    assert command.args is not None
    found = check_needs(command.values, command.args.with_blocks(count))
    return [line for line in found if line not in command.warnings]


def moved(folder: Path, args: Args, data_dir: str) -> Args:
    """The settings of the run in ``folder`` where its data lie in ``data_dir`` now.

    Raises:
        UsageError: they come with the code.
    """
    if not DATASETS[args.data.dataset].on_disk:
        raise UsageError(
            f"--data_dir {data_dir}: {folder} was trained on {args.data.dataset}, which comes with the code; "
            "leave it out"
        )
    return args.with_data_in(data_dir)


def rules_of(words: Sequence[str]) -> Rules:
    """The training rules that a command may name: those of the project, and those in Python files that it gives.

    Raises:
        UsageError: such a file cannot be used.
    """
    return _given([_normalise(word) for word in words])[0].rules


def check_same_images(own: Args, *others: Args, flag: str = "--cka") -> None:
    """Refuse to put runs together that did not see the same images; ``flag`` asked for it.

    Raises:
        UsageError: their data sets differ; of the user's own, their paths or sizes.
    """
    for other in others:
        one, two = map(_images_of, (own.data, other.data))
        if one != two:
            may_have_moved = flag == "--cka" and _images_of(own.with_data_in(other.data.data_dir).data) == two
            advice = "; if they are the same by now, give --data_dir with their place" if may_have_moved else ""
            raise UsageError(
                f"{flag}: that run saw {two}, but this one {one}; they must have been tested on the same images{advice}"
            )


def _images_of(data: DataArgs) -> str:
    """In words, which images a run saw."""
    where = f" {Path(data.data_dir).absolute()}" if DATASETS[data.dataset].is_own else ""
    own = {"image_size": data.image_size} if data.image_size else {}
    if data.generated is not None:
        own = dict([*data.group(Sizes), *data.generated])
    return f"{data.dataset}{where}" + (" with " if own else "") + " ".join(f"--{key} {own[key]}" for key in own)


def _validated(values: Mapping[str, Item]) -> Args:
    try:
        return build_args({name: item.value for name, item in values.items()})
    except ValidationError as error:
        raise UsageError(explain(error, values)) from None


def _sweep_options(words: Sequence[str]) -> dict[str, Any]:
    """What ``sweep`` was given, defaults filled in; a new sweep or an old one, not both."""
    options = sweep_parser().parse_strictly(words)
    if (options["file"] is None) == (options["resume"] is None):
        raise UsageError("sweep needs a FILE.yaml, or --resume FOLDER; give one of them")
    for name in ("seed", "path"):
        if options["resume"] is not None and options[name] is not None:
            raise UsageError(f"--{name} has no effect with --resume: the sweep has its own")
    bar = _truth(options, "progress_bar", True)
    return options | {"path": options["path"] or "experiments", "progress_bar": bar}


def _truth(options: Mapping[str, Any], name: str, default: bool) -> bool:
    """A switch of a verb."""
    word = str(options.get(name, default)).lower()
    if word not in TRUE_WORDS + FALSE_WORDS:
        raise UsageError(f"--{name} {options[name]!r}: allowed is true or false")
    return word in TRUE_WORDS


def _normalise(word: str) -> str:
    """``--learning-rate=1`` and ``--learning_rate=1`` are one flag."""
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def _train_command(words: Sequence[str], text: str) -> Command:
    if set(WORDS) & set(words):
        rest, topic = split_topic(words)
        rules = read_files([], _referred(rest)[1]).rules
        space = vars(train_parser(rules).parse_known_args(rest)[0])
        chosen = _choose_method(space, None, rules) if _names_a_method(space) else None
        print(help_text(topic, rules, chosen), end="")
        sys.exit(0)
    (values, rules, warnings), folder, typed = _given(words)
    space = train_parser(rules).parse_strictly(words)
    flags = {
        name: Item(code.named(_text(value), f"--{name}") if name in CODE_SETTINGS else _text(value), f"--{name}")
        for name, value in space.items()
        if name not in ("config", "print_config", "method") and not name.startswith(SHORT)
    }
    if folder is None and "resume" in values and values["resume"].value not in (None, "auto"):
        raise UsageError(f"{values['resume'].source}: only auto can stand in a file; give --resume RUN by itself")
    if folder is not None:
        if space["config"]:
            raise UsageError("--resume RUN takes its settings from the run; leave --config out")
        space = {name: value for name, value in space.items() if name not in typed}
        flags = {name: item for name, item in flags.items() if name not in (*typed, "resume")}
        method_flag = {"method": Item(_choose_method(space, None, rules), "--method")} if _names_a_method(space) else {}
        check_resumed(folder, values, flags | method_flag)
        flags["resume"] = Item(str(folder), "--resume")
    method = _choose_method(space, values["method"].value if "method" in values else None, rules)
    values = values | flags | {"method": Item(method, "--method")}
    values, more = check_effects(values, method, rules)
    args = _validated(values)
    warnings = [*warnings, *more, *check_needs(values, args), *args.warnings()]
    verb = "print_config" if space["print_config"] else "train"
    return Command(verb, text, args, warnings=warnings, values=values)


def _referred(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a command says of other files before its flags are understood, since these depend on the rule.

    Returns:
        The values of the flags that name them; and those of `CODE_SETTINGS` among them.
    """
    space = vars(reference_parser().parse_known_args(list(words))[0])
    return space, {name: space[name] for name in CODE_SETTINGS if space[name] is not None}


def _given(words: Sequence[str]) -> tuple[Given, Path | None, dict[str, str]]:
    """What files, or the run to go on with, give to a command; that run's folder; and its code that the user typed."""
    space, typed = _referred(words)
    if space["resume"] in (None, "auto"):
        return read_files([Path(path) for path in space["config"]], typed), None, {}
    folder = find_run(space["resume"], space["path"])
    typed = {name: value for name, value in typed.items() if code_file(value)}
    return read_run(folder, typed), folder, typed


def _text(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) else value


def _names_a_method(space: Mapping[str, Any]) -> bool:
    return "method" in space or any(key.startswith(SHORT) for key in space)


def _choose_method(space: Mapping[str, Any], from_files: Any, rules: Rules) -> str:
    """The method that ``--method``, its short forms and the files ask for together; one of ``rules``."""
    wanted = {}
    if "method" in space:
        wanted[code.named(space["method"], "--method")] = f"--method {space['method']}"
    refused = set()
    for key in [key for key in space if key.startswith(SHORT)]:
        name, value = key.removeprefix(SHORT), str(space[key]).lower()
        if value in TRUE_WORDS:
            wanted[name] = f"--{name}"
        elif value in FALSE_WORDS:
            refused.add(name)
        else:
            raise UsageError(f"--{name} {space[key]!r}: allowed is true or false")
    if len(wanted) > 1:
        raise UsageError(f"{' and '.join(wanted.values())} exclude each other; give one")
    method = str(next(iter(wanted), from_files or DEFAULT_METHOD))
    known = sorted(method_sections())
    if method not in rules:
        raise UsageError(
            f"--method {method!r}: allowed is one of {', '.join(known)}{did_you_mean(method, known)}, or the path of a "
            "file that ends in .py"
        )
    if method not in refused:
        return method
    if wanted:
        raise UsageError(f"{wanted[method]} and --no_{method} exclude each other; give one")
    if method == DEFAULT_METHOD:
        raise UsageError(f"--no_{method}: name the method to use instead, one of {', '.join(known)}")
    return DEFAULT_METHOD
