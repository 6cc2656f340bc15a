"""Settings of the task ``rotate``."""

from typing import ClassVar

from sections.tasks._base import TaskArgs


class RotateArgs(TaskArgs):
    """Rotation."""

    ABOUT = "telling by how many quarter turns an image was turned"
    IN_SSL = True
    EXCLUDES: ClassVar = {
        "pred_aux_type": (
            ("auglocal",),
            "its heads copy the shape of blocks that do not classify rotations; give another --pred_aux_type",
        )
    }
