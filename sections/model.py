"""Settings of the network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from consts import NETWORKS
from sections.fields import POSITIVE, Section, setting


class ModelArgs(Section):
    """Network."""

    model: Literal[tuple(NETWORKS)] = setting("BasicCNN", "backbone")  # type: ignore[valid-type]
    mlp_n_hidden_layers: int | None = setting(None, "hidden layers of the classifier", shown="the model's own", ge=0)
    mlp_hidden_dim: int | None = setting(
        None, "width of those layers", shown="the model's own", ge=1, needs={"mlp_n_hidden_layers": POSITIVE}
    )
    dropout_prob: float = setting(0.0, "probability of dropout after every block's ReLU", ge=0, lt=1)
    padding_mode: Literal["zeros", "circular"] = setting("zeros", "padding of the convolutions")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        layout = NETWORKS.get(str(values.get("model", "BasicCNN")))
        if layout is None:
            return values
        own = {"mlp_n_hidden_layers": layout.mlp_n_hidden_layers, "mlp_hidden_dim": layout.mlp_hidden_dim}
        return own | {name: value for name, value in values.items() if value is not None}
