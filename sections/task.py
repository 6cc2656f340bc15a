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

from typing import Any, Literal

from pydantic import model_validator

from sections.fields import TRUE_WORDS, Composite, setting
from sections.parts import found
from sections.tasks._base import INNER, TaskArgs

TASKS = found("sections.tasks", TaskArgs)
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

    def flag_of(self, task: str) -> str:
        """How the user asked for a task."""
        return f"--ssl_task {task}" if self.ssl and self.ssl_task == task else f"--{TASKS[task].weight_name()}"

    @property
    def own_weight(self) -> float:
        """The weight of the rule's own loss beside them."""
        return self.pred_loss_weight if self.ssl else 1.0
