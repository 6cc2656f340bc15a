"""Settings of the task ``cmc``."""

from sections.fields import POSITIVE, setting
from sections.tasks._base import TaskArgs


class CmcArgs(TaskArgs):
    """Contrast of brightness and colours."""

    ABOUT = "a contrastive loss without labels, between the brightness and the colours of each image"

    cmc_temperature: float = setting(0.07, "its temperature", gt=0, needs={"cmc_loss_weight": POSITIVE})
