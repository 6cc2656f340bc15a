"""Settings of the task ``shift``."""

from typing import ClassVar

from sections.tasks._base import TaskArgs


class ShiftArgs(TaskArgs):
    """Shifted reconstruction."""

    ABOUT = "reconstructing the image shifted, further from block to block"
    IN_SSL = DECODES = True
    REQUIRES: ClassVar = {"upsample": ((True,), "on a reduced image the shifts would be larger than they say")}

    @classmethod
    def warning(cls, padding_mode: str) -> str | None:
        """Warn about zero padding, behind which no block sees what the shift wraps around."""
        return (
            "a shifted reconstruction with --padding_mode zeros: the shift wraps around the image, and beyond a border "
            "of zeros no block can see what it is to draw there; --padding_mode circular lets it"
            if padding_mode == "zeros"
            else None
        )
