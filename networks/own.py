"""A network of the user's own: a function in a file that returns blocks and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from model import Backbone, InputSpec
from networks.modules import backbone_of
from schemas import ModelArgs
from sections.files import own_code
from sections.own import own_function
from utils import UsageError


def build_own(args: ModelArgs, spec: InputSpec) -> Backbone:
    """The network of ``--model FILE.py:FUNCTION``; the file was run already (`cli.code`).

    Raises:
        UsageError: one line, whatever is wrong with the function or what it returns.
        KeyError: the file was not run.
    """
    assert args.code is not None
    what, path = f"--model {args.model}", args.code.path
    function = own_function(args.code)
    with own_code(path, what):
        made = function(spec)
    return backbone_of(*_parts(made, what), spec, what, path)


def _parts(made: Any, what: str) -> tuple[Sequence[nn.Module], nn.Module]:
    """Blocks and classifier, if that is what they are."""
    expected = "it must return a list of modules, the blocks, and a module, the classifier"
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise UsageError(f"{what}: returned {_kind(made)}; {expected}")
    blocks, classifier = made
    if not isinstance(blocks, tuple | list | nn.ModuleList | nn.Sequential) or not len(blocks):
        raise UsageError(f"{what}: returned {_kind(blocks)} for the blocks; {expected}")
    for index, module in enumerate(blocks):
        if not isinstance(module, nn.Module):
            raise UsageError(f"{what}: element {index} of the blocks is {_kind(module)}; {expected}")
    if not isinstance(classifier, nn.Module):
        raise UsageError(f"{what}: returned {_kind(classifier)} for the classifier; {expected}")
    return list(blocks), classifier


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{length}"
