"""Settings of the task ``reconstruct``."""

from sections.tasks._base import TaskArgs


class ReconstructArgs(TaskArgs):
    """Reconstruction."""

    ABOUT = "reconstructing the image"
    IN_SSL = DECODES = True
