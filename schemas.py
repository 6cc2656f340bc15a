"""Every setting of the system, as frozen pydantic sections.

The command line, its help and its errors are made from them. Nothing here touches torch, the disk, the clock, the
environment or a GPU. A method's own section is a subclass of `MethodArgs` whose ``method`` field names its file in
``methods/``; a method without one does not exist for the user. Field names are unique across sections: flags are flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from consts import DATASETS, NETWORKS
from fields import POSITIVE, Below, Section, setting

DEFAULT_METHOD = "bp"


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
        layout = NETWORKS.get(values.get("model", "BasicCNN"))
        if layout is None:
            return values
        own = {"mlp_n_hidden_layers": layout.mlp_n_hidden_layers, "mlp_hidden_dim": layout.mlp_hidden_dim}
        return own | {name: value for name, value in values.items() if value is not None}


class MethodArgs(Section):
    """Training rule, settings of every method."""

    method: str = setting(DEFAULT_METHOD, "training rule; --NAME is short for --method NAME")
    first_trainable_block: int = setting(
        0, "blocks before this one stay as initialised (weights and statistics); negative counts from the end"
    )
    label_smoothing: float = setting(
        0.0, "weight of the uniform distribution in the classification targets", ge=0, lt=1
    )


class LocalArgs(MethodArgs):
    """Heads of local methods."""

    pred_aux_type: Literal["mlp", "cnn", "pooled", "mlp_sr", "linear"] = setting(
        "pooled", "classification head of every block but the last"
    )
    aux_mlp_n_hidden_layers: int = setting(
        1,
        "hidden layers of the heads' classifier (linear has none)",
        ge=0,
        needs={"pred_aux_type": ("mlp", "cnn", "pooled", "mlp_sr")},
    )
    aux_mlp_hidden_dim: int = setting(
        256,
        "width of those layers (mlp_sr has its own)",
        ge=1,
        needs={"pred_aux_type": ("mlp", "cnn", "pooled"), "aux_mlp_n_hidden_layers": POSITIVE},
    )


class BpArgs(MethodArgs):
    """Back-propagation (bp)."""

    method: Literal["bp"] = "bp"


class FaArgs(MethodArgs):
    """Feedback alignment (fa)."""

    method: Literal["fa"] = "fa"


class DfaArgs(MethodArgs):
    """Direct feedback alignment (dfa)."""

    method: Literal["dfa"] = "dfa"


class DglArgs(LocalArgs):
    """Decoupled greedy learning (dgl)."""

    method: Literal["dgl"] = "dgl"
    is_direct_global: bool = setting(False, "mix the last block's logit gradient into every block's")
    last_gradient_weight: float = setting(
        0.5,
        "weight of the last block's logit gradient in that mixture",
        ge=0,
        le=1,
        needs={"is_direct_global": (True,)},
    )


class PredsimArgs(LocalArgs):
    """Prediction and similarity matching (predsim)."""

    method: Literal["predsim"] = "predsim"
    pred_aux_type: Literal["mlp", "cnn", "pooled", "mlp_sr", "linear"] = setting(
        "linear", "classification head of every block but the last", needs={"sim_loss_weight": Below(1)}
    )
    sim_loss_weight: float = setting(
        0.99, "weight of similarity matching against cross-entropy in every block (1: similarity alone)", ge=0, le=1
    )
    dim_in_decoder: int = setting(
        2048, "features to which linear heads pool, or fewer", ge=1, needs={"pred_aux_type": ("linear",)}
    )


class DniArgs(MethodArgs):
    """Synthetic gradients (dni, cdni)."""

    method: Literal["dni"] = "dni"
    context: bool = setting(False, "give the synthesiser the labels")


class CdniArgs(DniArgs):
    """Synthetic gradients from output and label (cdni)."""

    method: Literal["cdni"] = "cdni"  # type: ignore[assignment]
    context: bool = setting(True, "give the synthesiser the labels")


_ON_DISK = tuple(name for name, facts in DATASETS.items() if facts.on_disk)
_DOWNLOADABLE = tuple(name for name, facts in DATASETS.items() if facts.downloadable)


class DataArgs(Section):
    """Data."""

    dataset: Literal[tuple(DATASETS)] = setting("cifar10", "data set")  # type: ignore[valid-type]
    data_dir: str = setting(
        "data",
        "folder of the data sets; with --dataset folder the tree itself",
        min_length=1,
        needs={"dataset": _ON_DISK},
    )
    download: bool = setting(False, "fetch a missing data set with torchvision", needs={"dataset": _DOWNLOADABLE})
    train_size: int | None = setting(
        None, "use only this many training images, class-balanced", shown="all", unit="images", ge=1
    )
    val_size: int = setting(0, "hold out this many training images to choose the best epoch", unit="images", ge=0)
    random_crop: bool | None = setting(None, "pad by 4 zeros and crop at random", shown="as suits the data set")
    random_horizontal_flip: bool | None = setting(None, "mirror every other image", shown="as suits the data set")
    random_erasing: bool = setting(False, "black out a random rectangle in every other image")
    random_resized_crop: bool = setting(False, "crop a square of 75 to 100 % of the area and scale it back")
    normalization: Literal["plus_minus_one", "unit_gaussian", "none"] = setting(
        "plus_minus_one", "scaling of the pixels"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_data_set(cls, values: dict[str, Any]) -> dict[str, Any]:
        facts = DATASETS.get(values.get("dataset", "cifar10"))
        if facts is None:
            return values
        crop = facts.random_crop and str(values.get("random_resized_crop", "")).lower() not in ("true", "1")
        own = {"random_crop": crop, "random_horizontal_flip": facts.random_horizontal_flip}
        return own | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _one_crop(self) -> DataArgs:
        if self.random_crop and self.random_resized_crop:
            raise ValueError("--random_resized_crop and --random_crop exclude each other; give --no_random_crop")
        return self


class OptimArgs(Section):
    """Optimisation."""

    epochs: int = setting(20, "passes over the training images", ge=1)
    batch_size: int = setting(128, "images per step", unit="images", ge=2)
    optimizer_type: Literal["SGD", "Adam", "AdamW"] = setting("SGD", "optimiser")
    learning_rate: float = setting(0.05, "peak learning rate", gt=0)
    momentum: float = setting(0.9, "momentum", ge=0, lt=1, needs={"optimizer_type": ("SGD",)})
    nesterov: bool = setting(True, "Nesterov's form of the momentum", needs={"optimizer_type": ("SGD",)})
    weight_decay: float = setting(5e-4, "weight decay (decoupled with AdamW)", ge=0)
    lr_schedule: Literal["constant", "multistep", "cosine", "one_cycle"] = setting(
        "one_cycle", "course of the learning rate"
    )
    lr_milestones: tuple[float, ...] = setting(
        (0.5, 0.75),
        "when multistep multiplies by lr_gamma",
        unit="fraction of the run",
        needs={"lr_schedule": ("multistep",)},
    )
    lr_gamma: float = setting(0.1, "factor of every multistep drop", gt=0, lt=1, needs={"lr_schedule": ("multistep",)})
    warmup_epochs: float = setting(
        0.0, "warm-up from almost zero (0 with one_cycle: three tenths of the run)", unit="epochs", ge=0
    )
    gradient_clip: float = setting(0.0, "largest gradient norm of a block, its heads included (0: no clipping)", ge=0)
    seed: int = setting(0, "seed of initialisation, order, augmentation and dropout", ge=0, lt=2**31)
    deterministic: bool = setting(False, "refuse GPU kernels whose result varies from run to run")

    @field_validator("lr_milestones", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        """``0.5,0.75``, ``[0.5, 0.75]`` and ``(0.5, 0.75)`` as a sweep agent writes them."""
        return value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("lr_milestones")
    @classmethod
    def _ascending_fractions(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < v < 1 for v in value) or list(value) != sorted(set(value)):
            raise ValueError("needs ascending fractions between 0 and 1, as 0.5,0.75")
        return value

    @model_validator(mode="after")
    def _possible(self) -> OptimArgs:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"--warmup_epochs {self.warmup_epochs:g} must be below --epochs {self.epochs}")
        if self.optimizer_type == "SGD" and self.nesterov and self.momentum == 0:
            raise ValueError("--nesterov needs a positive --momentum; give --no_nesterov")
        return self


class RunArgs(Section):
    """Run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = setting(
        "auto", "auto (a GPU where there is one), cpu, cuda:0, ..."
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "arithmetic of the blocks; auto times both for a moment"
    )
    compile: bool = setting(False, "compile every block with torch.compile (minutes at the start)")
    path: str = setting("experiments", "folder of the run folders", min_length=1)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = setting(
        "", "letters, digits, dots, dashes and underscores to add to the run folder's name"
    )
    wandb: Literal["auto", "online", "offline", "disabled"] = setting(
        "auto", "where wandb logs; auto: online when logged in, else offline"
    )
    log_interval: int = setting(50, "steps between two lines of training metrics", unit="steps", ge=1)
    progress_bar: bool = setting(True, "draw a progress bar (in a terminal)")
    resume: str | None = setting(
        None, "go on with this run folder; auto: the newest unfinished run of the same settings"
    )


SECTIONS: dict[str, type[Section]] = {
    "model": ModelArgs, "method": MethodArgs, "data": DataArgs, "optim": OptimArgs, "run": RunArgs,
}  # fmt: skip


# What may differ between a run and its continuation: where things are shown or computed, not what is learned.
HARMLESS = frozenset(
    {"device", "path", "name", "data_dir", "download", "wandb", "log_interval", "progress_bar", "resume"}
)


def method_sections() -> dict[str, type[MethodArgs]]:
    """Name of every method and its section, in the order of this file."""

    def descend(section: type[MethodArgs]) -> Iterator[type[MethodArgs]]:
        for child in section.__subclasses__():
            if "method" in child.__annotations__:
                yield child
            yield from descend(child)

    return {child.model_fields["method"].default: child for child in descend(MethodArgs)}


class Args(Section):
    """All settings of a run."""

    model: ModelArgs
    method: SerializeAsAny[MethodArgs]
    data: DataArgs
    optim: OptimArgs
    run: RunArgs

    @model_validator(mode="after")
    def _first_trainable_block_exists(self) -> Args:
        count, first = NETWORKS[self.model.model].num_blocks, self.method.first_trainable_block
        if not -count <= first < count:
            raise ValueError(
                f"--first_trainable_block {first}: {self.model.model} has {count} blocks, "
                f"so it must lie in {-count} to {count - 1}"
            )
        return self

    def flat(self) -> dict[str, Any]:
        """Every setting by the name of its flag, sections dissolved."""
        from flatten_dict import flatten

        return flatten(self.model_dump(mode="json"), reducer=lambda _, name: name)


def sections_for(method: str) -> dict[str, type[Section]]:
    """The sections of a run with ``method``: its own takes the place of the general one."""
    return SECTIONS | {"method": method_sections()[method]}


def build_args(values: Mapping[str, Any]) -> Args:
    """Validate flat settings.

    Args:
        values: settings by flag name, text or typed; only names that the chosen method has.

    Raises:
        pydantic.ValidationError: a value or a combination is impossible.
        KeyError: the method does not exist.
    """
    method = str(values.get("method", DEFAULT_METHOD))
    nested = {
        name: {key: values[key] for key in section.model_fields if key in values}
        for name, section in sections_for(method).items()
    }
    nested["method"] = sections_for(method)["method"](**nested["method"])  # type: ignore[assignment]
    return Args(**nested)
