"""Settings of the task ``rotate``."""

from typing import ClassVar

from sections.tasks._base import TaskArgs


class RotateArgs(TaskArgs):
    """Rotation."""

    ABOUT = "classifying the rotation of an image (0, 90, 180, 270 degrees)"
    IN_SSL = True
    EXCLUDES: ClassVar = {
        "pred_aux_type": (
            ("auglocal",),
            "its heads copy the shape of blocks that do not classify rotations; give another --pred_aux_type",
        )
    }
