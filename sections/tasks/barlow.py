"""Settings of the task ``barlow``."""

from sections.fields import POSITIVE, setting
from sections.tasks._base import TaskArgs


class BarlowArgs(TaskArgs):
    """Redundancy reduction between two views."""

    ABOUT = "redundancy reduction between two augmentations of each image (Barlow Twins)"
    TWO_VIEWS = True

    barlow_redundancy_weight: float = setting(
        0.005, "weight of its terms off the diagonal", ge=0, needs={"barlow_loss_weight": POSITIVE}
    )
