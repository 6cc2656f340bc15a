"""Settings of the task ``cpc``."""

from sections.tasks._base import TaskArgs


class CpcArgs(TaskArgs):
    """Predictive coding."""

    ABOUT = "predicting a block's map from the rows above (Greedy InfoMax)"
