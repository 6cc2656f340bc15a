"""Settings of the task ``supcon``."""

from sections.fields import Above, setting
from sections.tasks._base import TaskArgs


class SupconArgs(TaskArgs):
    """Supervised contrast."""

    ABOUT = "a contrastive loss with labels"
    CONTRASTS_LABELS = True

    contrast_temperature: float = setting(0.1, "temperature of that loss", gt=0, needs={"supcon_loss_weight": Above(0)})
