"""Writes ``docs/methods.md`` from the docstrings of `methods/` and the sections of `schemas.py`: ``make docs``.

With ``--check`` it writes nothing and exits with 1 where the file is not current.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cli.messages import allowed  # noqa: E402
from schemas import MethodArgs, method_sections  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
START = """# Methods

Made by `make docs` from the docstrings in `methods/` and the settings in `schemas.py`; change it there. `--NAME` is
short for `--method NAME`. Settings that every method has: {shared}.
"""


def section(name: str, settings: type[MethodArgs]) -> str:
    """One method: its docstring with the headings as bold words, and a row for each setting of its own."""
    tree = ast.parse((ROOT / "methods" / f"{name}.py").read_text(encoding="utf-8"))
    title, *body = (ast.get_docstring(tree) or "").split("\n")
    lines = [f"## {name}: {title.rstrip('.')}"]
    for line in body:
        heading = line[:-1] if line.endswith(":") and not line.startswith(" ") else None
        lines.append(f"**{heading}.**" if heading else inspect.cleandoc(line) if line.strip() else "")
    own = [key for key in settings.model_fields if key not in MethodArgs.model_fields]
    if own:
        lines += ["", "| flag | meaning | allowed | default |", "|---|---|---|---|"]
    for key in own:
        field = settings.model_fields[key]
        lines.append(f"| `--{key}` | {field.description} | {allowed(field)} | {field.default} |")
    return "\n".join(lines)


def page() -> str:
    """The whole file."""
    shared = ", ".join(f"`--{name}`" for name in MethodArgs.model_fields)
    parts = [section(name, settings) for name, settings in sorted(method_sections().items())]
    return "\n\n".join([START.format(shared=shared).rstrip(), *parts]) + "\n"


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
