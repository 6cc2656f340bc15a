"""Reading a YAML file that a person wrote; what YAML 1.1 silently understands in another way than meant is refused.

ruamel.yaml refuses duplicate keys too and reads YAML 1.2, but wandb reads sweep files with PyYAML: one file would mean
two things.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import UsageError

if TYPE_CHECKING:
    import yaml

_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-5]?[0-9])+)")  # octal, as 010; base 60, as 1:30


def read_yaml(path: Path, flag: str = "") -> Any:
    """The content of a YAML file, which ``flag`` asked for; None where it holds nothing but comments.

    Raises:
        UsageError: it cannot be read, is not YAML, has a key twice, or a number such as 010, which YAML reads as 8.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        problem = next(_problems(root, set()), None) if root is not None else None
        content = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror or error}".lstrip()) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2000-99-99
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path} is not valid YAML{line}: {getattr(error, 'problem', None) or error}") from None
    if problem:
        raise UsageError(f"{path}: {problem}")
    return content


def _problems(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """What is probably meant in another way; of nodes that stand in several places (``seen``) only once."""
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    line = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int") and _OTHER_BASE.fullmatch(node.value):
            sign, digits = node.value.startswith("-") * "-", node.value.lstrip("+-0_").replace("_", "") or "0"
            kind = (
                "a number of base 60; quote it, or write the number"
                if ":" in digits
                else f"an octal number; write {sign}{digits}"
            )
            yield f"{line}: YAML reads {node.value} as {kind}"
        return
    children = list(node.value)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, _ in node.value:
            at = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in first:
                yield f"line {at}: {key.value} stands in line {first[key.value]} already; leave one of them out"
            first.setdefault(key.value if isinstance(key, yaml.ScalarNode) else "", at)
        children = [part for pair in node.value for part in pair]
    for child in children:
        yield from _problems(child, seen)
