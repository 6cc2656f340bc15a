"""Where each setting comes from, and whether it has an effect with the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from consts import CONFIG_FILE
from schemas import HARMLESS, SECTIONS, Args, build_args, fact_words, method_sections, settings_of
from sections.combine import idle
from sections.fields import FALSE_WORDS, TRUE_WORDS, Section, fields_of
from utils import UsageError, did_you_mean

RETIRED: dict[str, Any] = {"stage_delay": []}  # settings of earlier versions, with the value that has no effect


class Item(NamedTuple):
    """A value as it was written, and the words that name its source in a message."""

    value: Any
    source: str

    @property
    def is_flag(self) -> bool:
        """Whether it was typed on the command line."""
        return self.source.startswith("--")


def all_sections() -> dict[str, list[type[Section]]]:
    """Section title to the classes that can stand there: several for ``method``, one for the others."""
    return {title: [section] for title, section in SECTIONS.items()} | {"method": [*method_sections().values()]}


def known_names() -> set[str]:
    """Names of all settings of all methods."""
    return {name for sections in all_sections().values() for section in sections for name in fields_of(section)}


def read_config(path: Path) -> dict[str, Item]:
    """The settings in a YAML file, flat or nested by section.

    Raises:
        UsageError: the file is missing, is not such a mapping, or names a setting that does not exist.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2000-99-99
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise UsageError(f"{path} is not valid YAML{line}: {getattr(error, 'problem', None) or error}") from None
    if content is None:  # nothing but comments
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold settings as 'name: value', not a {type(content).__name__}")
    return {name: Item(value, f"{path}: {name}") for name, value in _flatten(path, content)}


def _flatten(path: Path, content: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            owners = all_sections().get(key)
            if owners is None:
                raise UsageError(f"{path}: unknown section {key!r}; there are {', '.join(SECTIONS)}")
            names, entries = {name for owner in owners for name in fields_of(owner)}, value.items()
        else:
            names, entries = known_names(), [(key, value)]  # type: ignore[assignment]
        for name, entry in entries:
            if name in RETIRED and entry == RETIRED[name]:
                continue
            if name not in names:
                hint = f" (write 'method: {name}')" if name in method_sections() else did_you_mean(str(name), names)
                raise UsageError(f"{path}: unknown setting {name}{hint}")
            yield name, entry


def read_run(folder: Path) -> dict[str, Item]:
    """The settings that a run was started with.

    Raises:
        UsageError: ``folder`` is not a run folder, or its settings cannot be read.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise UsageError(f"{folder}: no run folder there (it would hold {CONFIG_FILE})")
    values = read_config(folder / CONFIG_FILE)
    if "method" not in values:  # every setting is in it, and defaults would make another run of it
        raise UsageError(f"{folder / CONFIG_FILE} does not hold the settings of a run")
    return values


def read_resumed(flags: Mapping[str, Item]) -> dict[str, Item]:
    """The settings of the run that ``--resume RUN`` goes on with.

    Raises:
        UsageError: there is no such run, or a flag asks for something else than the run did.
    """
    wanted = str(flags["resume"].value)
    folders = [Path(wanted), Path(str(flags["path"].value) if "path" in flags else "experiments") / wanted]
    folder = next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)
    if folder is None:
        raise UsageError(
            f"--resume {wanted!r}: no run folder there (it would hold {CONFIG_FILE}); give its path, or auto"
        )
    before = read_run(folder)
    for name, item in flags.items():
        if name not in HARMLESS and (name not in before or not _same(before[name].value, item.value)):
            value = before[name].value if name in before else "not set"
            raise UsageError(
                f"{item.source} {item.value}: the run was started with {value}, and another value would change it; "
                f"leave it out, or start a new run with --config {folder / CONFIG_FILE}"
            )
    return before | {"resume": Item(str(folder), "--resume")}


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


def check_effects(values: Mapping[str, Item], method: str) -> tuple[dict[str, Item], list[str]]:
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
            owners = ", ".join(other for other, section in method_sections().items() if name in fields_of(section))
            raise UsageError(f"{item.source} has no effect with --method {method}; it belongs to: {owners}")
        elif not _is_default(name, item.value):
            warnings.append(f"{item.source} has no effect with --method {method} and is left out")
    return kept, warnings


@cache
def _resolved(method: str) -> dict[str, Any]:
    return build_args({"method": method}).flat()


def _is_default(name: str, value: Any) -> bool:
    """Whether a rule that has the setting would do the same without it, as files that hold every setting have it."""
    return any(name in known and value == known[name] for known in map(_resolved, method_sections()))


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
