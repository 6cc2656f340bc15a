"""What several training rules share: every method's settings, and those of local methods by family."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from sections.fields import POSITIVE, TRUE_WORDS, Above, Other, Section, list_from_text, setting

DEFAULT_METHOD = "bp"
HeadKind = Literal["mlp", "cnn", "pooled", "mlp_sr", "linear", "1c2f", "cnn_full", "conv", "auglocal"]
WITH_HIDDEN_LAYERS = ("mlp", "cnn", "pooled", "mlp_sr", "1c2f", "cnn_full", "conv")
WITH_FREE_WIDTH = ("mlp", "cnn", "pooled", "1c2f", "conv")


class MethodArgs(Section):
    """Training rule, settings of every method."""

    method: str = setting(DEFAULT_METHOD, "training rule; --NAME is short for --method NAME")
    first_trainable_block: int = setting(
        0, "blocks before this one stay as initialised (weights and statistics); negative counts from the end"
    )
    skip_frozen_blocks: bool = setting(
        False, "leave out what these blocks compute; only their pools stay", needs={"first_trainable_block": Other(0)}
    )
    label_smoothing: float = setting(
        0.0, "weight of the uniform distribution in the classification targets", ge=0, lt=1
    )


class ModuleArgs(MethodArgs):
    """Modules of local methods."""

    num_modules: int | None = setting(
        None, "join the blocks to this many modules, each trained as one (1: back-propagation)", ge=1,
        shown="one for every block",
    )  # fmt: skip
    split: Literal["equal", "flops", "memory"] = setting(
        "equal", "what they share equally: blocks, operations or activations", needs={"num_modules": POSITIVE}
    )
    module_ends: tuple[int, ...] = setting(
        (),
        "instead, the last block of every module, as 2,5,8 (that of the network may be left out)",
        shown="every block",
    )
    overlap: int = setting(0, "modules below its own that a module's loss trains as well", unit="modules", ge=0)

    @field_validator("module_ends", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        return list_from_text(value)

    @model_validator(mode="after")
    def _one_division(self) -> ModuleArgs:
        ends = self.module_ends
        if ends and self.num_modules is not None:
            raise ValueError("--module_ends and --num_modules exclude each other; give one")
        if list(ends) != sorted(set(ends)) or (ends and ends[0] < 0):
            raise ValueError(f"--module_ends {','.join(map(str, ends))}: needs ascending numbers of blocks, from 0")
        return self


class SequentialArgs(ModuleArgs):
    """Order of local methods."""

    sequential: bool = setting(
        False, "train one block (or module) after the other, each for an equal share of --epochs, then freeze it"
    )

    @model_validator(mode="after")
    def _blocks_alone(self) -> SequentialArgs:
        if self.sequential and self.overlap:
            raise ValueError("--sequential and --overlap exclude each other: a block that is finished learns no more")
        return self


class SslArgs(SequentialArgs):
    """Self-supervised task of local methods."""

    ssl: bool = setting(False, "give every block but the last a self-supervised loss beside its own")
    ssl_task: Literal["reconstruct", "shift", "rotate", "inpaint", "colourise"] = setting(
        "reconstruct",
        "give back the image; give it back shifted, further from block to block; tell how it was turned; draw what is "
        "masked; or draw the colours of a grey copy",
        needs={"ssl": (True,)},
    )
    shift_ssl_labels: bool | None = setting(
        None, "the same as --ssl_task shift", shown="as --ssl_task says", needs={"ssl": (True,)}
    )
    upsample: bool = setting(
        False,
        "decoders enlarge to the image's size; else the image is reduced to theirs",
        needs={"ssl": (True,), "ssl_task": ("reconstruct", "shift", "inpaint", "colourise")},
    )
    upsample_type: Literal["transposed", "bilinear"] = setting(
        "transposed", "how: transposed convolutions, or 1x1 convolutions and interpolation", needs={"upsample": (True,)}
    )
    pred_loss_weight: float = setting(
        0.9, "weight of the method's own loss (0: the task alone; the last block is not affected)", ge=0,
        needs={"ssl": (True,)},
    )  # fmt: skip
    ssl_loss_weight: float = setting(0.1, "weight of the task's loss", ge=0, needs={"ssl": (True,)})
    supcon_loss_weight: float = setting(
        0.0,
        "weight of a contrastive loss with labels in every block but the last (without --ssl beside weight 1)",
        ge=0,
    )
    contrast_temperature: float = setting(0.1, "temperature of that loss", gt=0, needs={"supcon_loss_weight": Above(0)})

    simclr_loss_weight: float = setting(
        0.0, "weight of a contrastive loss without labels, between two augmentations of each image, likewise", ge=0
    )
    simclr_temperature: float = setting(0.5, "its temperature", gt=0, needs={"simclr_loss_weight": POSITIVE})
    cpc_loss_weight: float = setting(
        0.0, "weight of predicting a block's map from the rows above (Greedy InfoMax), likewise", ge=0
    )

    @property
    def contrasts_labels(self) -> bool:
        """Whether a block must find in the batch another image of the same label."""
        return self.supcon_loss_weight > 0

    @property
    def has_task(self) -> bool:
        """Whether blocks learn something beside the method's own loss."""
        return self.has_other_task or self.cpc_loss_weight > 0

    @property
    def has_other_task(self) -> bool:
        """Whether all of them do, also those with maps too small for predictive coding."""
        return (self.ssl and self.ssl_loss_weight > 0) or self.supcon_loss_weight > 0 or self.simclr_loss_weight > 0

    @property
    def cpc_alone(self) -> bool:
        """Whether a block may have nothing to learn from but predictive coding."""
        return self.ssl and self.pred_loss_weight == 0 and not self.has_other_task

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, values: dict[str, Any]) -> dict[str, Any]:
        shifted = values.get("shift_ssl_labels")
        if shifted is None:
            return values | {"shift_ssl_labels": values.get("ssl_task") == "shift"}
        return {"ssl_task": "shift"} | values if str(shifted).lower() in TRUE_WORDS else values

    @model_validator(mode="after")
    def _possible_task(self) -> SslArgs:
        if self.shift_ssl_labels != (self.ssl_task == "shift"):
            raise ValueError(
                f"--shift_ssl_labels {str(self.shift_ssl_labels).lower()} and --ssl_task {self.ssl_task} contradict "
                "each other; give one of them"
            )
        if self.ssl and self.ssl_task == "shift" and not self.upsample:
            raise ValueError(
                "--shift_ssl_labels needs --upsample: on a reduced image the shifts would be larger than they say"
            )
        if self.ssl and self.pred_loss_weight == 0 and not self.has_task:
            raise ValueError("--pred_loss_weight 0 and --ssl_loss_weight 0 leave the blocks nothing to learn from")
        return self


class LocalArgs(SslArgs):
    """Heads of local methods."""

    pred_aux_type: HeadKind = setting("pooled", "classification head of every block but the last")
    aux_mlp_n_hidden_layers: int = setting(
        1,
        "hidden layers of the heads' classifier (linear has none; those of conv and cnn_full are convolutions)",
        ge=0,
        needs={"pred_aux_type": WITH_HIDDEN_LAYERS},
    )
    aux_mlp_hidden_dim: int = setting(
        256,
        "width of those layers (mlp_sr and cnn_full have their own)",
        ge=1,
        needs={"pred_aux_type": WITH_FREE_WIDTH, "aux_mlp_n_hidden_layers": POSITIVE},
    )
    aux_depth: int = setting(
        2, "blocks of such a head, or all that follow", ge=1, needs={"pred_aux_type": ("auglocal",)}
    )
    aux_pyramid: float = setting(
        0.0, "how much of its depth an auglocal head loses from the first to the last (1: all but one block)",
        ge=0, le=1, needs={"pred_aux_type": ("auglocal",)},
    )  # fmt: skip
    man: bool = setting(
        False, "heads see the output through two copies of the next block's first layers: trained, and averaged in time"
    )
    man_momentum: float = setting(0.995, "how much of that average stays at a step", ge=0, le=1, needs={"man": (True,)})
    coarse_labels_first: bool = setting(
        False, "early blocks learn two super-classes, later ones five, the last third the classes (CIFAR-10)"
    )

    @model_validator(mode="after")
    def _possible_heads(self) -> LocalArgs:
        if self.pred_aux_type == "auglocal" and self.ssl and self.ssl_task == "rotate":
            raise ValueError(
                "--pred_aux_type auglocal and --ssl_task rotate exclude each other: its heads take their shape from "
                "blocks that do not tell rotations; give another --pred_aux_type"
            )
        others = {"pred_aux_type auglocal": self.pred_aux_type == "auglocal"}
        for flag, is_given in (others | {"overlap": self.overlap, "sequential": self.sequential}).items():
            if self.man and is_given:
                raise ValueError(f"--man and --{flag} exclude each other; give one")
        return self
