"""Settings of the task ``inpaint``."""

from sections.tasks._base import TaskArgs


class InpaintArgs(TaskArgs):
    """Inpainting."""

    ABOUT = "drawing a masked rectangle of the image"
    IN_SSL = DECODES = True
