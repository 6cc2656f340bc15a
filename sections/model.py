"""Settings of the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from consts import NETWORKS
from sections.fields import POSITIVE, Section, setting
from utils import code_file

_LIBRARY, _CODE = r"(torchvision|timm):([\w.-]+)", r"[^\x00]+\.py:[^\W\d]\w*"
BUILT_IN = {"built_in": (True,)}  # for what only the project's own networks know how to do
CLASSIFIER = BUILT_IN | {"classifier": (True,)}
_SIZED = tuple(name for name, layout in NETWORKS.items() if layout.patches)
_TREES = tuple(name for name in _SIZED if NETWORKS[name].patches == "tree")


class Code(NamedTuple):
    """A network that a function in a file of the user's makes."""

    path: Path
    function: str


class ModelArgs(Section):
    """Network."""

    model: Literal[tuple(NETWORKS)] | Annotated[str, Field(pattern=f"^({_LIBRARY}|{_CODE})$")] = setting(  # type: ignore[valid-type]
        "BasicCNN", "backbone", form="torchvision:NAME, timm:NAME or FILE.py:FUNCTION"
    )
    stem: Literal["as_is", "cifar"] = setting(
        "as_is", "first layers of a library's network: its own, or for small images (3x3, stride 1, no max pool)",
        needs={"from_library": (True,)},
    )  # fmt: skip
    num_layers: int = setting(
        3, "blocks of the network, each a layer with BatchNorm and ReLU", unit="blocks", ge=1, le=100,
        needs={"model": _SIZED},
    )  # fmt: skip
    layer_width: int = setting(
        256,
        "units of every layer, at each position where there are several",
        unit="units",
        ge=1,
        needs={"model": _SIZED},
    )
    patch_size: int = setting(
        2, "side of the patch of the layer before that a unit sees", unit="positions", ge=2, needs={"model": _TREES}
    )
    mlp_n_hidden_layers: int | None = setting(
        None, "hidden layers of the classifier", shown="the model's own", ge=0, needs=CLASSIFIER
    )
    mlp_hidden_dim: int | None = setting(
        None, "width of those layers", shown="the model's own", ge=1,
        needs=CLASSIFIER | {"mlp_n_hidden_layers": POSITIVE},
    )  # fmt: skip
    dropout_prob: float = setting(0.0, "probability of dropout after every block's ReLU", ge=0, lt=1, needs=BUILT_IN)
    padding_mode: Literal["zeros", "circular"] = setting(
        "zeros", "padding of the convolutions", needs={"pads": (True,)}
    )
    init_from: Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")] | None = setting(
        None, "begin with the weights of this run folder's network (its best checkpoint), heads too where they fit"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        layout = NETWORKS.get(str(values.get("model", "BasicCNN")))
        if layout is None:
            return values
        own = {"mlp_n_hidden_layers": layout.mlp_n_hidden_layers, "mlp_hidden_dim": layout.mlp_hidden_dim}
        return own | {name: value for name, value in values.items() if value is not None}

    @property
    def is_built_in(self) -> bool:
        """Whether it is a network of the table in `consts.py`."""
        return self.model in NETWORKS

    @property
    def pads(self) -> bool:
        """Whether it is one of them, and its convolutions keep the size of their maps."""
        return self.is_built_in and not NETWORKS[self.model].patches

    @property
    def num_blocks(self) -> int | None:
        """Blocks of a network of the table; None where only building it shows how many."""
        if not self.is_built_in:
            return None
        return self.num_layers if NETWORKS[self.model].patches else NETWORKS[self.model].num_blocks

    @property
    def library(self) -> tuple[str, str] | None:
        """The library that has it, and its name there, if it is from a library."""
        found = re.fullmatch(_LIBRARY, self.model)
        return None if found is None else (found[1], found[2])

    @property
    def code(self) -> Code | None:
        """The file and the function that make it, if that is how it is made."""
        file = code_file(self.model)
        return None if file is None else Code(file, self.model.rpartition(":")[2])
