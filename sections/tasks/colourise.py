"""Settings of the task ``colourise``."""

from sections.tasks._base import TaskArgs


class ColouriseArgs(TaskArgs):
    """Colourisation."""

    ABOUT = "drawing the colours of a grey copy"
    IN_SSL = DECODES = True
