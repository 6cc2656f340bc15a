"""Writes ``docs/methods.md`` from the docstrings of rules, tasks, heads and option groups: ``make docs``.

With ``--check`` it writes nothing and exits with 1 where the file is not current.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cli.messages import allowed  # noqa: E402
from schemas import MethodArgs, method_sections  # noqa: E402
from sections.checkpoints import Checkpoints  # noqa: E402
from sections.fields import Section, extra, own_fields  # noqa: E402
from sections.heads import Heads, Momentum  # noqa: E402
from sections.labels import SuperClasses  # noqa: E402
from sections.modules import Modules, Overlap  # noqa: E402
from sections.phases import Phases  # noqa: E402
from sections.task import TASKS, Tasks  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
START = """# Methods

Made by `make docs` from the docstrings of `methods/`, `tasks/`, `heads/`, `sections/` and the settings there; change it
there. `--NAME` is short for `--method NAME`. Settings that every method has: {shared}.

{index}

## Which rule takes which options

A flag of a group that a rule does not take is refused, and so is one that has no effect beside the others.

{table}

{relations}
"""
# Files of options whose paper and signal are told on the page, and their settings.
OPTIONS: dict[str, tuple[str, list[type[Section]]]] = {
    "--checkpoint_blocks": ("sections/checkpoints", [Checkpoints]),
    "--num_modules": ("sections/modules", [Modules, Overlap]),
    "--sequential": ("sections/phases", [Phases]),
    "--pred_aux_type": ("heads/classifiers", [Heads]),
    "--pred_aux_type auglocal": ("heads/auglocal", []),
    "--pred_aux_type channelwise, lls or random": ("heads/fixed", []),
    "--man": ("heads/momentum", [Momentum]),
    "--coarse_labels_first": ("datamodules/super_classes", [SuperClasses]),
    "--ssl": ("sections/task", [Tasks]),
}


EMPTY: Mapping[str, object] = {}


def section(title: str, file: str, settings: Mapping[str, FieldInfo], recipe: Mapping[str, object] = EMPTY) -> str:
    """One method or option: the docstring of its file with the headings as bold words, and a row for each setting."""
    tree = ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))
    subtitle, *body = (ast.get_docstring(tree) or "").split("\n")
    lines = [f"## {title}: {subtitle.rstrip('.')}"]
    for line in body:
        heading = line[:-1] if line.endswith(":") and not line.startswith(" ") else None
        lines.append(f"**{heading}.**" if heading else inspect.cleandoc(line) if line.strip() else "")
    rows = [
        f"| `--{name}` | {field.description} | {allowed(field)} | {extra(field, 'shown') or field.default} |"
        for name, field in settings.items()
    ]
    if rows:
        lines += ["", "| flag | meaning | allowed | default |", "|---|---|---|---|", *rows]
    if recipe:
        words = " ".join(f"--{name} {value}" for name, value in recipe.items())
        lines += ["", f"**Recipe**, the defaults of this rule where others stand for all: `{words}`"]
    return "\n".join(lines)


def anchor(heading: str) -> str:
    """The link that GitHub gives a heading."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def index(sections: Sequence[str]) -> str:
    """A link to every section of the page, by its heading."""
    headings = [each.partition("\n")[0].removeprefix("## ") for each in sections]
    return "\n".join(f"- [{heading}]({anchor(heading)})" for heading in headings)


def table() -> str:
    """Rules against option groups."""
    rules = method_sections()
    groups = [group for rule in rules.values() for group in rule.GROUPS]
    groups = list(dict.fromkeys(groups))
    titles = [(group.__doc__ or "").partition(" of local methods")[0].rstrip(".") for group in groups]
    lines = [f"| rule | {' | '.join(titles)} | stages side by side |", f"|---|{'---|' * (len(groups) + 1)}"]
    for name, rule in rules.items():
        cells = ["x" if group in rule.GROUPS else "" for group in groups] + ["x" if rule.BLOCKS_ALONE else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def relations() -> str:
    """What cannot be combined, or needs something else, as the settings declare it."""
    from schemas import fact_words, settings_of

    lines: dict[str, None] = {}
    for rule in method_sections():
        for name, field in settings_of(rule).items():
            for other, (_, why) in extra(field, "excludes").items():
                if other in settings_of(rule):
                    lines[f"- `--{name}` excludes `--{other}`{f': {why}' if why else ''}"] = None
            for other, (_, why) in extra(field, "requires").items():
                needed = fact_words().get(other, f"`--{other}`")
                lines[f"- `--{name}` requires {needed}{f': {why}' if why else ''}"] = None
    return "\n".join(sorted(lines))


def own(settings: type[Section]) -> dict[str, FieldInfo]:
    """The settings that a section adds to those that it inherits."""
    return {name: field for name, field in own_fields(settings).items() if name not in MethodArgs.model_fields}


def parts() -> Iterator[str]:
    """The sections of the page: rules, options, tasks."""
    for name, rule in method_sections().items():
        yield section(name, f"methods/{name}", own(rule), rule.RECIPE)
    for title, (file, groups) in OPTIONS.items():
        yield section(title, file, {name: field for group in groups for name, field in own_fields(group).items()})
    for name, task in TASKS.items():
        yield section(f"--{task.weight_name()}", f"tasks/{name}", own_fields(task))


def page() -> str:
    """The whole file."""
    shared = ", ".join(f"`--{name}`" for name in own_fields(MethodArgs))
    sections = [*parts()]
    start = START.format(shared=shared, index=index(sections), table=table(), relations=relations())
    return "\n\n".join([start.rstrip(), *sections]) + "\n"


def main() -> int:
    """Write or check the file."""
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv[1:]:
        if current != page():
            print("docs/methods.md is not current: run make docs", file=sys.stderr)
        return int(current != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
