"""Where each setting comes from, and whether it has an effect with the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cli import code
from consts import CODE_SETTINGS, CONFIG_FILE, digest_name
from schemas import HARMLESS, SECTIONS, Args, Rules, build_args, fact_words, method_sections, settings_of
from sections.combine import idle
from sections.fields import FALSE_WORDS, TRUE_WORDS, Section, fields_of
from sections.yaml_file import read_yaml
from utils import UsageError, code_file, did_you_mean

RETIRED: dict[str, Any] = {"stage_delay": []}  # settings of earlier versions, with the value that has no effect


class Item(NamedTuple):
    """A value as it was written, and the words that name its source in a message."""

    value: Any
    source: str

    @property
    def is_flag(self) -> bool:
        """Whether it was typed on the command line."""
        return self.source.startswith("--")


class Given(NamedTuple):
    """What files, or the run to go on with, give to a command before its flags.

    Attributes:
        values: settings.
        rules: those of the project, and of files that the command or `values` name.
        warnings: lines to show before anything starts.
    """

    values: dict[str, Item]
    rules: Rules
    warnings: list[str]


def all_sections(rules: Rules) -> dict[str, list[type[Section]]]:
    """Section title to the classes that can stand there: several for ``method``, one for the others."""
    return {title: [section] for title, section in SECTIONS.items()} | {"method": [*rules.values()]}


def known_names(rules: Rules) -> set[str]:
    """Names of all settings of all ``rules``."""
    return {name for sections in all_sections(rules).values() for section in sections for name in fields_of(section)}


def read_files(paths: Sequence[Path], typed: Mapping[str, str]) -> Given:
    """The settings in YAML files, later ones before earlier ones; and the user's own code, which is run.

    Args:
        paths: of the files.
        typed: what the command line has of `CODE_SETTINGS`, which wins.

    Raises:
        UsageError: a file is missing, is not a mapping of settings, or names a setting that does not exist; or code
            cannot be run.
    """
    contents = [(path, _read_settings(path, "--config")) for path in paths]
    own = [code.named(typed["method"], "--method")] if code_file(typed.get("method")) else []
    moved: dict[Path, dict[str, str]] = {path: {} for path in paths}
    warnings = []
    for path, content in contents:
        for name, value in _code_in(content).items():
            file = code_file(value)
            if name in CODE_SETTINGS and file and (name not in typed or file.is_file()):
                moved[path][name] = code.named(value, f"{path}: {name}")
        own += [moved[path]["method"]] if "method" in moved[path] else []
        warnings += code.changed({n: v for n, v in _code_in(content).items() if n not in typed}, str(path))
    rules = method_sections(*own)
    values: dict[str, Item] = {}
    for path, content in contents:
        values |= _items(path, content, rules, moved[path])
    return Given(values, rules, warnings)


def _read_settings(path: Path, flag: str = "") -> dict[Any, Any]:
    content = read_yaml(path, flag)
    if content is None:  # nothing but comments
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold settings as 'name: value', not a {type(content).__name__}")
    return content


def _code_in(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings that may name the user's own code, and their digests, in the flat or nested content of a file."""
    found: dict[str, Any] = {}
    for name in CODE_SETTINGS:
        around = content[name] if isinstance(content.get(name), dict) else content
        found |= {key: around[key] for key in (name, digest_name(name)) if key in around}
    return found


def _items(path: Path, content: Mapping[Any, Any], rules: Rules, moved: Mapping[str, str]) -> dict[str, Item]:
    """The settings in a file's content; those in ``moved`` have another value, since they name code."""
    return {name: Item(moved.get(name, value), f"{path}: {name}") for name, value in _flatten(path, content, rules)}


def _flatten(path: Path, content: Mapping[Any, Any], rules: Rules) -> Iterator[tuple[str, Any]]:
    digests = {digest_name(name) for name, value in _code_in(content).items() if code_file(value)}
    for key, value in content.items():
        if isinstance(value, dict):
            owners = all_sections(rules).get(key)
            if owners is None:
                raise UsageError(f"{path}: unknown section {key!r}; there are {', '.join(SECTIONS)}")
            names, entries = {name for owner in owners for name in fields_of(owner)}, value.items()
        else:
            names, entries = known_names(rules), [(key, value)]  # type: ignore[assignment]
        for name, entry in entries:
            if name in digests or (name in RETIRED and entry == RETIRED[name]):
                continue
            if name not in names:
                hint = f" (write 'method: {name}')" if name in rules else did_you_mean(str(name), names)
                raise UsageError(f"{path}: unknown setting {name}{hint}")
            yield name, entry


def read_run(folder: Path, typed: Mapping[str, str]) -> Given:
    """The settings that a run was started with, and its code (`code.of_run`).

    Raises:
        UsageError: ``folder`` is not a run folder, its settings cannot be read, or its code must not be run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no run folder there (it would hold {CONFIG_FILE})")
    content = _read_settings(path)
    own, warnings = code.of_run(folder, _code_in(content), typed)
    rules = method_sections(*([own["method"]] if "method" in own else []))
    values = _items(path, content, rules, own)
    if "method" not in values:  # every setting is in it, and defaults would make another run of it
        raise UsageError(f"{path} does not hold the settings of a run")
    return Given(values, rules, warnings)


def find_run(wanted: str, path: str | None) -> Path:
    """Find the run folder that ``--resume`` names: a path, or the name of a folder in ``path``.

    Raises:
        UsageError: there is none.
    """
    folders = [Path(wanted), Path(path or "experiments") / wanted]
    folder = next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)
    if folder is None:
        raise UsageError(
            f"--resume {wanted!r}: no run folder there (it would hold {CONFIG_FILE}); give its path, or auto"
        )
    return folder


def check_resumed(folder: Path, before: Mapping[str, Item], flags: Mapping[str, Item]) -> None:
    """Refuse flags that contradict the settings of the run that is resumed.

    Raises:
        UsageError: naming the flag.
    """
    for name, item in flags.items():
        if name not in HARMLESS and (name not in before or not _same(before[name].value, item.value)):
            value = before[name].value if name in before else "not set"
            raise UsageError(
                f"{item.source} {item.value}: the run was started with {value}, and another value would change it; "
                f"leave it out, or start a new run with --config {folder / CONFIG_FILE}"
            )


def _same(before: Any, text: Any) -> bool:
    """Whether a flag's text means the value in the file."""
    if isinstance(before, bool):
        return str(text).lower() in (TRUE_WORDS if before else FALSE_WORDS)
    if isinstance(before, (int, float)):
        try:
            return float(text) == before
        except ValueError:
            return False
    return str(before) == str(text)


def check_effects(values: Mapping[str, Item], method: str, rules: Rules) -> tuple[dict[str, Item], list[str]]:
    """Refuse flags that would do nothing; leave out, with a warning, what a file sets for another method.

    Returns:
        The settings that the method has, and the warnings.

    Raises:
        UsageError: a flag has no effect with the other settings.
    """
    fields = settings_of(method)
    kept, warnings = {}, []
    for name, item in values.items():
        if name in fields:
            kept[name] = item
        elif item.is_flag:
            owners = ", ".join(other for other, section in rules.items() if name in fields_of(section))
            raise UsageError(f"{item.source} has no effect with --method {method}; it belongs to: {owners}")
        elif not _is_default(name, item.value, rules):
            warnings.append(f"{item.source} has no effect with --method {method} and is left out")
    return kept, warnings


@cache
def _resolved(method: str) -> dict[str, Any]:
    return build_args({"method": method}).flat()


def _is_default(name: str, value: Any, rules: Rules) -> bool:
    """Whether a rule that has the setting would do the same without it, as files that hold every setting have it."""
    return any(name in known and value == known[name] for known in map(_resolved, rules))


def check_needs(values: Mapping[str, Item], args: Args) -> list[str]:
    """Refuse a flag whose ``needs`` the resolved settings do not meet.

    Returns:
        Warnings: the same of settings in files, where they are not what they would be anyway.

    Raises:
        UsageError: naming the flag and what it needs.
    """
    fields, facts, warnings = args.fields(), args.facts(), []
    for name, item in values.items():
        is_off = not facts.get(name) and facts.get(name) == fields[name].default  # as without the flag
        needed = None if is_off else idle(name, fields, facts, fact_words())
        if needed and item.is_flag:
            raise UsageError(f"{item.source} has no effect: it needs {needed}")
        if needed and name != "method":
            others = {other: each.value for other, each in values.items() if other != name}
            if build_args(others).flat()[name] != args.flat()[name]:
                warnings.append(f"{item.source} has no effect: it needs {needed}")
    return warnings
