"""How the settings of an auxiliary task are written."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from sections.fields import Above, Holding, Section, setting

INNER = {"trained_modules": Above(1)}  # for every block but the last, which learns from the classifier alone


class TaskArgs(Section):
    """Settings of one auxiliary task, in a file of ``sections/tasks/`` that is named as the task's in ``tasks/``.

    The weight of its loss, ``--NAME_loss_weight``, is not written there: every subclass gets it.

    Attributes:
        ABOUT: what a block learns, for the help of the weight.
        IN_SSL: whether ``--ssl_task`` can name it.
        DECODES: whether its head draws an image, for which ``--upsample`` matters.
        TWO_VIEWS: whether it compares two augmentations of every image.
        CONTRASTS_LABELS: whether it compares images of one label.
        REQUIRES, EXCLUDES: relations of the weight to other settings, see `sections.fields.setting`.
    """

    ABOUT: ClassVar[str]
    IN_SSL: ClassVar[bool] = False
    DECODES: ClassVar[bool] = False
    TWO_VIEWS: ClassVar[bool] = False
    CONTRASTS_LABELS: ClassVar[bool] = False
    REQUIRES: ClassVar[dict[str, Any]] = {}
    EXCLUDES: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the weight of the loss."""
        super().__init_subclass__(**kwargs)
        requires, excludes = cls.REQUIRES, {"is_direct_global": ((True,), "")} | cls.EXCLUDES
        if cls.TWO_VIEWS:
            requires = {"augments": ((True,), "it compares two augmentations of an image")} | requires
            excludes |= {"diagnostics": (Holding("alignment"), "the loss needs two views of an image, it has one")}
        weight = setting(
            0.0, f"weight of {cls.ABOUT}, beside weight 1 of the rule's own loss (or those of --ssl)", ge=0,
            needs=INNER, requires=requires, excludes=excludes,
        )  # fmt: skip
        cls.__annotations__ = {**inspect.get_annotations(cls), cls.weight_name(): float}
        setattr(cls, cls.weight_name(), weight)

    @classmethod
    def task(cls) -> str:
        """The name of the task: that of the section's file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def weight_name(cls) -> str:
        """The setting of its loss's weight."""
        return f"{cls.task()}_loss_weight"

    @property
    def weight(self) -> float:
        """The weight of its loss, 0 where it is left out."""
        weight: float = getattr(self, self.weight_name())
        return weight

    @classmethod
    def warning(cls, padding_mode: str) -> str | None:
        """A warning where this padding of the convolutions is allowed but probably a mistake; None without one."""
        return None
