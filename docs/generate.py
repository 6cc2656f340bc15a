"""Writes ``docs/methods.md`` from docstrings in `methods/` and `heads/` and sections of `schemas.py`: ``make docs``.

With ``--check`` it writes nothing and exits with 1 where the file is not current.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cli.messages import allowed  # noqa: E402
from schemas import LocalArgs, MethodArgs, ModuleArgs, SequentialArgs, SslArgs, method_sections  # noqa: E402
from sections.fields import extra  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
START = """# Methods

Made by `make docs` from the docstrings in `methods/` and `heads/` and the settings in `schemas.py`; change it there.
`--NAME` is short for `--method NAME`. Settings that every method has: {shared}. Local methods
({local}) also take the options at the end.
"""


def section(title: str, file: str, settings: type[MethodArgs], names: Iterable[str]) -> str:
    """One method or option: the docstring of its file with the headings as bold words, and a row for each setting."""
    tree = ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))
    subtitle, *body = (ast.get_docstring(tree) or "").split("\n")
    lines = [f"## {title}: {subtitle.rstrip('.')}"]
    for line in body:
        heading = line[:-1] if line.endswith(":") and not line.startswith(" ") else None
        lines.append(f"**{heading}.**" if heading else inspect.cleandoc(line) if line.strip() else "")
    rows = []
    for name in names:
        field = settings.model_fields[name]
        default = extra(field, "shown") or field.default
        rows.append(f"| `--{name}` | {field.description} | {allowed(field)} | {default} |")
    if rows:
        lines += ["", "| flag | meaning | allowed | default |", "|---|---|---|---|", *rows]
    return "\n".join(lines)


def own(settings: type[MethodArgs]) -> list[str]:
    """The names that a section adds to those that it inherits."""
    return [name for name in settings.__annotations__ if name in settings.model_fields]


def page() -> str:
    """The whole file."""
    shared = ", ".join(f"`--{name}`" for name in MethodArgs.model_fields)
    supcon = ["supcon_loss_weight", "contrast_temperature"]
    simclr = ["simclr_loss_weight", "simclr_temperature"]
    cpc = ["cpc_loss_weight"]
    options = {
        "--num_modules": ("methods/_modules", own(ModuleArgs)),
        "--sequential": ("methods/_sequential", own(SequentialArgs)),
        "--ssl": ("methods/_ssl", [name for name in own(SslArgs) if name not in (*supcon, *simclr, *cpc)]),
        "--ssl_task inpaint, colourise": ("methods/_restore", []),
        "--supcon_loss_weight": ("methods/_supcon", supcon),
        "--simclr_loss_weight": ("methods/_views", simclr),
        "--cpc_loss_weight": ("methods/_cpc", cpc),
        "--pred_aux_type auglocal": ("heads/auglocal", ["aux_depth", "aux_pyramid"]),
        "--man": ("heads/momentum", ["man", "man_momentum"]),
        "--coarse_labels_first": ("methods/_coarse", ["coarse_labels_first"]),
    }
    elsewhere = {*MethodArgs.model_fields, *(name for _, names in options.values() for name in names)}
    parts = [
        section(name, f"methods/{name}", settings, [key for key in settings.model_fields if key not in elsewhere])
        for name, settings in sorted(method_sections().items())
    ]
    parts += [section(title, file, LocalArgs, names) for title, (file, names) in options.items()]
    local = ", ".join(sorted(name for name, settings in method_sections().items() if issubclass(settings, LocalArgs)))
    return "\n\n".join([START.format(shared=shared, local=local).rstrip(), *parts]) + "\n"


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
