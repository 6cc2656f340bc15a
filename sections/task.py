"""Auxiliary tasks of local rules: further losses, each with a head of its own, for every block but the last.

Paper:
    AlonNT/Thesis for ``--ssl``; each task names its own.

Signal:
    Block i minimises ``a l_i + sum_t b_t s_ti``, where l_i is the rule's own loss and s_ti that of task t, of a head
    on the block's output before its pool. b_t is ``--NAME_loss_weight``. ``--ssl`` is short for the one task that
    ``--ssl_task`` names with the weight ``--ssl_loss_weight``; a is then ``--pred_loss_weight``, and otherwise 1. Any
    number of tasks combine. The last block learns from its classifier alone; a = 0 trains the others without the
    rule's own loss. Images that a task adds to a batch have a name there, and serve the tasks that ask for it.

Cost:
    A head more for each block and task; some tasks double the images.

Deviations:
    1. The weights are those given, also where one is zero; the thesis ignored ``--ssl_loss_weight`` for a = 0.

Reference numbers:
    Those of the tasks.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar, Literal

from pydantic import create_model, model_validator

from sections.fields import TRUE_WORDS, Above, Composite, Holding, Section, setting
from sections.parts import found

INNER = {"trained_modules": Above(1)}  # the last block has the classifier, and learns from nothing else


class TaskArgs(Section):
    """Settings of one auxiliary task, in a file of ``sections/tasks/`` that is named as the task's in ``tasks/``.

    The weight of its loss, ``--NAME_loss_weight``, is not written there: `weighted` adds it.

    Attributes:
        ABOUT: what a block learns, for the help of the weight.
        IN_SSL: whether ``--ssl_task`` can name it.
        DECODES: whether its head draws an image, for which ``--upsample`` matters.
        TWO_VIEWS: whether it compares two augmentations of every image.
        CONTRASTS_LABELS: whether it compares images of one label.
        DRAWS: whether it draws random numbers in a step, for which the engine seeds the generator.
        REQUIRES, EXCLUDES: relations of the weight to other settings, see `sections.fields.setting`.
    """

    ABOUT: ClassVar[str]
    IN_SSL: ClassVar[bool] = False
    DECODES: ClassVar[bool] = False
    TWO_VIEWS: ClassVar[bool] = False
    CONTRASTS_LABELS: ClassVar[bool] = False
    DRAWS: ClassVar[bool] = False
    REQUIRES: ClassVar[dict[str, Any]] = {}
    EXCLUDES: ClassVar[dict[str, Any]] = {}

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


def weighted(task: type[TaskArgs]) -> type[TaskArgs]:
    """The section of a task with the weight of its loss."""
    requires, excludes = task.REQUIRES, {"is_direct_global": ((True,), "")} | task.EXCLUDES
    if task.TWO_VIEWS:
        requires = {"augments": ((True,), "it compares two augmentations of an image")} | requires
        excludes |= {
            "diagnostics": (Holding("alignment"), "alignment looks at images as they are, and the loss needs two views")
        }
    weight = setting(
        0.0, f"weight of {task.ABOUT}, beside weight 1 of the rule's own loss (or those of --ssl)", ge=0, needs=INNER,
        requires=requires, excludes=excludes,
    )  # fmt: skip
    made: type[TaskArgs] = create_model(
        task.__name__, __base__=task, __module__=task.__module__, __doc__=task.__doc__,
        **{task.weight_name(): (float, weight)},
    )  # type: ignore[call-overload]  # fmt: skip
    setattr(sys.modules[task.__module__], task.__name__, made)  # where pickle looks for it
    return made


TASKS = {name: weighted(section) for name, section in found("sections.tasks", TaskArgs).items()}
SSL_TASKS = tuple(name for name, section in TASKS.items() if section.IN_SSL)
SSL = "ssl"  # stands for the task of ``--ssl`` in the names of losses and parameters


class Tasks(Composite):
    """Auxiliary tasks of local methods."""

    GROUPS = tuple(TASKS.values())

    ssl: bool = setting(
        False, "give every block but the last a self-supervised loss beside its own", needs=INNER,
        excludes={"is_direct_global": ((True,), "")},
    )  # fmt: skip
    ssl_task: Literal[SSL_TASKS] = setting(  # type: ignore[valid-type]
        "reconstruct",
        "which: " + "; ".join(f"{name}: {TASKS[name].ABOUT}" for name in SSL_TASKS),
        needs={"ssl": (True,)},
    )
    shift_ssl_labels: bool | None = setting(
        None, "the same as --ssl_task shift", shown="as --ssl_task says", needs={"ssl": (True,)},
        requires=TASKS["shift"].REQUIRES,
    )  # fmt: skip
    upsample: bool = setting(
        False,
        "decoders enlarge to the image's size; else the image is reduced to theirs",
        needs={"decodes": (True,)},
    )
    upsample_type: Literal["transposed", "bilinear"] = setting(
        "transposed", "how: transposed convolutions, or 1x1 convolutions and interpolation", needs={"upsample": (True,)}
    )
    pred_loss_weight: float = setting(
        0.9, "weight of the method's own loss (0: the task alone; the last block is not affected)", ge=0,
        needs={"ssl": (True,)},
    )  # fmt: skip
    ssl_loss_weight: float = setting(0.1, "weight of the task's loss", ge=0, needs={"ssl": (True,)})

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, values: dict[str, Any]) -> dict[str, Any]:
        shifted = values.get("shift_ssl_labels")
        if shifted is None:
            return values | {"shift_ssl_labels": values.get("ssl_task") == "shift"}
        return {"ssl_task": "shift"} | values if str(shifted).lower() in TRUE_WORDS else values

    @model_validator(mode="after")
    def _possible(self) -> Tasks:
        if self.shift_ssl_labels != (self.ssl_task == "shift"):
            raise ValueError(
                f"--shift_ssl_labels {str(self.shift_ssl_labels).lower()} and --ssl_task {self.ssl_task} contradict "
                "each other; give one of them"
            )
        if self.ssl and self.group(TASKS[self.ssl_task]).weight:
            raise ValueError(
                f"--ssl_task {self.ssl_task} and --{TASKS[self.ssl_task].weight_name()} exclude each other; give one"
            )
        if self.ssl and self.pred_loss_weight == 0 and not self.active:
            raise ValueError("--pred_loss_weight 0 and --ssl_loss_weight 0 leave the blocks nothing to learn from")
        return self

    @property
    def active(self) -> dict[str, tuple[TaskArgs, float]]:
        """The tasks that blocks learn and their weights, by the name of their loss: `SSL`, or the task's own.

        In the order in which their heads draw weights: what ``--ssl`` names, then against the alphabet.
        """
        chosen = {SSL: (self.group(TASKS[self.ssl_task]), self.ssl_loss_weight if self.ssl else 0.0)}
        others = {name: self.group(section) for name, section in reversed(TASKS.items())}
        chosen |= {name: (section, section.weight) for name, section in others.items()}
        return {name: (section, weight) for name, (section, weight) in chosen.items() if weight > 0}

    @property
    def own_weight(self) -> float:
        """The weight of the rule's own loss beside them."""
        return self.pred_loss_weight if self.ssl else 1.0
