"""Settings of the task ``simclr``."""

from sections.fields import POSITIVE, setting
from sections.tasks._base import TaskArgs


class SimclrArgs(TaskArgs):
    """Contrast of two views."""

    ABOUT = "a contrastive loss without labels, between two augmentations of each image"
    TWO_VIEWS = True

    simclr_temperature: float = setting(0.5, "its temperature", gt=0, needs={"simclr_loss_weight": POSITIVE})
