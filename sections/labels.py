"""Option groups: what blocks learn from the labels."""

from __future__ import annotations

from sections.fields import Section, setting
from sections.tasks._base import INNER


class Smoothing(Section):
    """Label smoothing."""

    label_smoothing: float = setting(
        0.0, "weight of the uniform distribution in the classification targets", ge=0, lt=1
    )


class SuperClasses(Section):
    """Coarse labels."""

    coarse_labels_first: bool = setting(
        False, "early blocks learn two super-classes, later ones five, the last third the classes (CIFAR-10)",
        needs=INNER,
    )  # fmt: skip
