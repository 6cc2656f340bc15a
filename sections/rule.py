"""Settings that every training rule has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import model_validator

from sections.fields import Composite, Other, setting
from sections.run import OptimArgs
from sections.task import Tasks

DEFAULT_METHOD = "bp"


def recipe(**settings: Any) -> Mapping[str, Any]:
    """A rule's own defaults for settings of `OptimArgs`, as ``recipe(learning_rate=0.02)``.

    Raises:
        pydantic.ValidationError: there is no such setting, or its value is not allowed.
    """
    OptimArgs(**settings)
    return MappingProxyType(settings)


class MethodArgs(Composite):
    """Training rule, settings of every method.

    A rule's own section is a subclass in a file of ``sections/rules/`` that is named as the rule's in ``methods/``. It
    lists the option groups that the rule takes and adds only what is its own.

    Attributes:
        RECIPE: how the rule is trained where the user does not say otherwise (`recipe`). Defaults of heads and of the
            rule's own settings stand where these are declared.
        BLOCKS_ALONE: whether a block learns from itself and the blocks below, so that stages can be trained at the same
            time; a setting that breaks it ``excludes`` ``--layer_parallel``.
        CLASSIFIES: whether the network's classifier takes part; without it its settings have no effect.
    """

    RECIPE: ClassVar[Mapping[str, Any]] = recipe()
    BLOCKS_ALONE: ClassVar[bool] = False
    CLASSIFIES: ClassVar[bool] = True

    method: str = setting(
        DEFAULT_METHOD, "training rule, or the file of one of your own; --NAME is short for --method NAME"
    )
    first_trainable_block: int = setting(
        0, "blocks before this one stay as initialised (weights and statistics); negative counts from the end"
    )
    skip_frozen_blocks: bool = setting(
        False, "leave out what these blocks compute; only their pools stay",
        needs={"first_trainable_block": Other(0), "pads": (True,)},
    )  # fmt: skip

    @classmethod
    def rule(cls) -> str:
        """The name of the rule: that of the section's file."""
        return cls.__module__.rpartition(".")[2]

    @model_validator(mode="before")
    @classmethod
    def _named_as_its_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"method": cls.rule()} | values

    @property
    def tasks(self) -> Tasks:
        """The auxiliary tasks; none, if the rule takes none."""
        return self.group(Tasks)

    @property
    def contrasts_labels(self) -> bool:
        """Whether a loss compares images of one label, of which a batch must then hold some."""
        return any(task.CONTRASTS_LABELS for task, _ in self.tasks.active.values())
