"""Settings of ``--method pepita``."""

from sections.fields import setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class PepitaArgs(MethodArgs):
    """Error-driven input modulation (pepita)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.01)

    projection_scale: float = setting(
        0.05, "largest of the numbers that carry the error to the pixels, times the root of 6 / pixels", gt=0, le=10
    )
