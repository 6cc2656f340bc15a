"""What ``evaluate`` can find out of a run beside accuracy and loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.early_exit import study_exits
from engine.information import study_information
from engine.linear import study_linear
from engine.prefixes import study_prefixes
from engine.similarity import study_similarity
from engine.trained import Trained


def studies(run: Trained, options: Mapping[str, Any], others: Sequence[Trained]) -> Iterator[str]:
    """Write what ``options`` ask for into the folder of ``run``, and say it line by line.

    Raises:
        UserError: a study cannot be made of this run, or not written.
    """
    if options["early_exit"]:
        yield from study_exits(run)
    if options["prefixes"] is not None:
        yield from study_prefixes(run, options["prefixes"])
    if options["information"]:
        yield from study_information(run)
    if options["linear"]:
        yield from study_linear(run)
    for other in others:
        yield from study_similarity(run, other)
