"""An argparse parser made from the sections of `schemas`: one group each, help from the fields.

pydantic-settings, jsonargparse, LightningCLI, tyro and hydra were tried and none did: a bare ``--dgl`` beside
``--dgl=true`` (which sweep agents write), flat flags, one-line errors with exit code 2, and help in a fraction of a
second.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from cli.messages import choices, is_boolean, is_list, range_text
from consts import CODE_SETTINGS, DEVICE, PROGRAM, VERBS
from schemas import DEFAULT_METHOD, SECTIONS, MethodArgs, Rules, settings_of
from sections.fields import Composite, Section, extra, fields_of, own_fields, with_default
from utils import EXIT_USAGE, UsageError, code_file, did_you_mean, printable

STUDY_SWITCHES = {  # studies that are switched on or off: files of studies/, and their help
    "early_exit": "accuracy against cost when confident images leave at an early block",
    "information": "estimates of the information that every block keeps of the image and of its label",
    "linear": "accuracy of a linear classifier on every block's output",
}
SPELLINGS = "Switches: --dgl, --no_dgl, --dgl=true. Dashes and underscores are the same. Defaults < --config < flags."
SHORT = "method="  # destination of --dgl and its like; the equals sign keeps it apart from every setting


class Parser(argparse.ArgumentParser):
    """argparse without a page of usage before an error, and with a suggestion for a mistyped flag."""

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        see = "" if "allowed is" in message else f"; see python {self.prog} --help"
        self.exit(EXIT_USAGE, f"{PROGRAM}: error: {printable(message)}{see}\n")

    def parse_strictly(self, argv: Sequence[str]) -> dict[str, Any]:
        """Parse; a word that is left over is an error."""
        namespace, rest = self.parse_known_args(list(argv))
        if rest:
            word = rest[0].partition("=")[0]
            kind, known = "argument", list(VERBS)
            if word.startswith("-"):
                kind, known = "flag", [option for option in self._option_string_actions if option.startswith("--")]
                known += ["--help", "--version"]
            self.error(f"unknown {kind} {word}{did_you_mean(word, known)}")
        return vars(namespace)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return "none" if value in (None, "") else str(value)


def _add_switch(group: argparse._ActionsContainer, name: str, dest: str, help_text: str) -> None:
    """``--name``, ``--name=true``, ``--name True`` and ``--no_name``."""
    absent = argparse.SUPPRESS
    group.add_argument(f"--{name}", dest=dest, nargs="?", const="true", metavar="BOOL", default=absent, help=help_text)
    group.add_argument(f"--no_{name}", dest=dest, action="store_const", const="false", default=absent, help=absent)


def add_setting(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    """Add the flag of a setting: what it takes, its default and its unit."""
    facts = [f"default {extra(field, 'shown') or _shown(field.default)}", extra(field, "unit"), range_text(field)]
    words = ",".join(choices(field))
    if len(words) >= 60:
        facts.append(words.replace(",", " "))
    facts.append(extra(field, "form") and f"or {extra(field, 'form')}")
    help_text = f"{field.description} [{'; '.join(fact for fact in facts if fact)}]".replace("%", "%%")
    if is_boolean(field):
        _add_switch(group, name, name, help_text)
        return
    metavar = f"{{{words}}}" if 0 < len(words) < 60 else name.rpartition("_")[2].upper()
    nargs = "+" if is_list(field) else None
    group.add_argument(f"--{name}", dest=name, nargs=nargs, metavar=metavar, default=argparse.SUPPRESS, help=help_text)


def shown_setting(name: str, rules: Rules, method: str | None) -> FieldInfo:
    """A setting that every rule has, with the default of ``method``; without, the help says where rules differ."""
    field = settings_of(method or DEFAULT_METHOD)[name]
    if method is None and len({settings_of(rule)[name].default for rule in rules}) > 1:
        return with_default(field, field.default, f"{_shown(field.default)}, or the rule's own")
    return field


def _title(section: type[Section]) -> str:
    return (section.__doc__ or section.__name__).partition("\n")[0].rstrip(".")


def _add_methods(parser: Parser, rules: Rules, method: str | None) -> None:
    """Add general settings, option groups, then each rule's own settings; with ``method``, only what it takes."""
    general = parser.add_argument_group(_title(MethodArgs))
    project = [name for name in rules if not code_file(name)]
    names = "{" + ",".join([*sorted(project), "FILE.py"]) + "}"
    text = f"{MethodArgs.model_fields['method'].description} [default {MethodArgs.model_fields['method'].default}]"
    general.add_argument("--method", metavar=names, default=argparse.SUPPRESS, help=text)
    for name in project:
        _add_switch(general, name, f"{SHORT}{name}", f"short for --method {name}")
    chosen = [section for name, section in rules.items() if method in (None, name)]
    owners: dict[type[Section], argparse._ArgumentGroup] = {MethodArgs: general}
    done = {"method"}
    for section in chosen:
        settings = fields_of(section)
        around: list[type[Section]] = [MethodArgs, *_groups(section), section]
        for owner in around:
            own = [name for name in own_fields(owner) if name not in done]
            done.update(own)
            if own and owner not in owners:
                owners[owner] = parser.add_argument_group(_title(owner))
            for name in own:
                # A rule's own declaration of a group's setting shows in the help of that rule alone.
                add_setting(owners[owner], name, settings[name] if method else own_fields(owner)[name])


def _groups(section: type[Section]) -> Iterator[type[Section]]:
    """The option groups of a section, and theirs."""
    for group in section.GROUPS if issubclass(section, Composite) else ():
        yield group
        yield from _groups(group)


def train_parser(rules: Rules, method: str | None = None, *, part: str | None = None) -> Parser:
    """The parser of a training command.

    Args:
        rules: the training rules that there are.
        method: only the flags that this one takes.
        part: only the flags of this section of `SECTIONS`.

    Raises:
        UsageError: a setting of a rule of the user's own has the name of another flag.
    """
    parser = Parser(
        prog=PROGRAM,
        usage=f"python {PROGRAM} [flags]",
        allow_abbrev=False,
        add_help=False,  # `cli.help` answers it
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a convolutional network without end-to-end back-propagation, or with it.",
        epilog=SPELLINGS,
    )
    if part is None:
        _add_files(parser)
    try:
        for title, section in SECTIONS.items():
            if part not in (None, title):
                continue
            if title == "method":
                _add_methods(parser, rules, method)
                continue
            for owner in (section, *_groups(section)):
                group = parser.add_argument_group(_title(owner))
                for name in own_fields(owner):
                    add_setting(group, name, shown_setting(name, rules, method))
    except argparse.ArgumentError as error:
        own = ", ".join(name for name in rules if code_file(name))
        raise UsageError(f"--method {own}: {error.argument_name} is a flag of every run; rename the setting") from None
    return parser


def _add_files(parser: Parser) -> None:
    files = parser.add_argument_group("Settings from files")
    files.add_argument(
        "--config", action="append", default=[], metavar="FILE.yaml", help="take settings from a file; later ones win"
    )
    files.add_argument("--print_config", action="store_true", help="print the resolved settings as YAML and end")


def reference_parser() -> Parser:
    """The parser of those flags of a training command on which it depends what other flags there are."""
    parser = Parser(prog=PROGRAM, allow_abbrev=False, add_help=False)
    for name in (*CODE_SETTINGS, "resume", "path"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--config", action="append", default=[])
    return parser


def report_parser() -> Parser:
    """The parser of ``report``."""
    parser = Parser(
        prog=f"{PROGRAM} report", description="Compare runs: a table here; figures, a page and a CSV in a folder."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders and tables that hold some")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--out", metavar="FOLDER", help="where to write [default report]")
    either.add_argument(
        "--record", type=_table, metavar="FILE.csv",
        help="write no report: add a line for every finished run to this table, which a study keeps",
    )  # fmt: skip
    return parser


def _own_file(text: str) -> str:
    if code_file(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is the path of a file that ends in .py")
    return text


def _table(text: str) -> str:
    if not text.endswith(".csv") or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is the path of a file that ends in .csv")
    return text


def _place(text: str) -> str:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is the path of a folder or file")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is auto, cpu, cuda:0, ...")
    return text


def _points(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 100:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number, at least 0, at most 100 (points of accuracy)")


def _add_run(parser: Parser) -> None:
    """The run folder that a verb loads, its checkpoint, the user's own code in it, and its data."""
    parser.add_argument("runs", nargs=1, metavar="RUN", help="a run folder")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="which checkpoint [default best]")
    parser.add_argument(
        "--method", type=_own_file, metavar="FILE.py",
        help="the file with the rule of RUN, where that was one of your own that this machine has not run yet",
    )  # fmt: skip
    parser.add_argument(
        "--model", type=_own_file, metavar="FILE.py:FUNCTION", help="likewise, the file with the network of RUN"
    )
    parser.add_argument(
        "--data_dir", type=_place, metavar="DIR", help="where the data of RUN are now, if not where they were"
    )


def export_parser() -> Parser:
    """The parser of ``export``."""
    parser = Parser(
        prog=f"{PROGRAM} export",
        description="Write the network of a run for use without this project: a program of torch.export and a plain "
        "state dict. Heads that served training only stay behind.",
    )
    _add_run(parser)
    parser.add_argument("file", metavar="FILE.pt2", help="the program; the weights are written beside it, to FILE.pt")
    return parser


def evaluate_parser() -> Parser:
    """The parser of ``evaluate``."""
    parser = Parser(
        prog=f"{PROGRAM} evaluate", description="Test the weights of a run again, every block's head included."
    )
    _add_run(parser)
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda:0, ... [default auto]")
    studies = parser.add_argument_group("Studies", "each writes a table and a figure into the folder of RUN")
    for name, help_text in STUDY_SWITCHES.items():
        _add_switch(studies, name, name, f"{help_text} [default off]")
    studies.add_argument(
        "--prefixes", metavar="POINTS", type=_points,
        help="blocks up to each exit as networks of their own, and the smallest that loses no more points of accuracy",
    )  # fmt: skip
    studies.add_argument(
        "--cka", metavar="OTHER", help="similarity of its blocks to those of the run in another folder"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number, at least 1")
    return int(text)


def sweep_parser() -> Parser:
    """The parser of ``sweep``."""
    parser = Parser(
        prog=f"{PROGRAM} sweep",
        description="Search settings without a server: a file in wandb's sweep format, a run folder for every trial, "
        "a table and figures in the end. `wandb sweep FILE` and `wandb agent` take the same files.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE.yaml", help="the sweep, as configs/sweeps/*.yaml")
    parser.add_argument(
        "--resume", metavar="FOLDER", help="go on with this sweep instead, or help another machine that runs it"
    )
    parser.add_argument(
        "--trials", type=_count, help="how many in all [default run_cap of the file, or the whole grid]"
    )
    parser.add_argument("--workers", type=_count, default=1, help="trials side by side [default 1]")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="who places the trials: this machine, or Ray (the extra [ray]) on the GPUs and machines of RAY_ADDRESS, "
        "which is this machine where it is not set [default local]",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="seed of the search, not of the runs [default 0]")
    parser.add_argument("--path", help="folder of the sweep's folder [default experiments]")
    _add_switch(parser, "progress_bar", "progress_bar", "draw a progress bar (in a terminal) [default on]")
    return parser
