"""Every setting of the system, as frozen pydantic sections: network and methods here, what is shared in `sections/`.

The command line, its help and its errors are made from them. Nothing here touches torch, the disk, the clock, the
environment or a GPU. A method's own section is a subclass of `MethodArgs` whose ``method`` field names its file in
``methods/``; a method without one does not exist for the user. Field names are unique across sections: flags are flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import SerializeAsAny, model_validator

from consts import NETWORKS
from sections.fields import POSITIVE, TRUE_WORDS, Below, Section, setting
from sections.method import (
    DEFAULT_METHOD,
    WITH_FREE_WIDTH,
    HeadKind,
    LocalArgs,
    MethodArgs,
    ModuleArgs,
    SequentialArgs,
    SslArgs,
)
from sections.run import DataArgs, OptimArgs, RunArgs


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

    @model_validator(mode="after")
    def _one_signal(self) -> DglArgs:
        for flag in ("ssl", "sequential", "overlap", "supcon_loss_weight", "simclr_loss_weight", "cpc_loss_weight"):
            if self.is_direct_global and getattr(self, flag):
                raise ValueError(f"--is_direct_global and --{flag} exclude each other; give one")
        return self


class PredsimArgs(LocalArgs):
    """Prediction and similarity matching (predsim)."""

    method: Literal["predsim"] = "predsim"
    pred_aux_type: HeadKind = setting(
        "linear", "classification head of every block but the last", needs={"sim_loss_weight": Below(1)}
    )
    sim_loss_weight: float = setting(
        0.99, "weight of similarity matching against cross-entropy in every block (1: similarity alone)", ge=0, le=1,
        shown="0.99, with --bio 0.01",
    )  # fmt: skip
    dim_in_decoder: int = setting(
        2048, "features to which linear heads pool, or fewer", ge=1, needs={"pred_aux_type": ("linear",)},
        unless={"bio": (True,)},
    )  # fmt: skip
    bio: bool = setting(
        False, "the more biological form: random bits for targets, fixed random weights on the way down, no g"
    )
    man: bool = setting(
        False,
        "heads see the output through two copies of the next block's first layers: trained, and averaged in time",
        needs={"sim_loss_weight": Below(1)},
    )
    local_classifier: bool = setting(
        False, "no gradient crosses the classifier either: its hidden layers are blocks with heads of their own"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_bio(cls, values: dict[str, Any]) -> dict[str, Any]:
        bio = str(values.get("bio")).lower() in TRUE_WORDS
        return {"sim_loss_weight": 0.01} | values if bio else values

    @model_validator(mode="after")
    def _bio_is_linear(self) -> PredsimArgs:
        if self.bio and self.pred_aux_type != "linear":
            raise ValueError(f"--pred_aux_type {self.pred_aux_type}: heads of --bio are linear; leave one of them out")
        if self.bio and self.man:
            raise ValueError("--man and --bio exclude each other; give one")
        return self


class InfoproArgs(LocalArgs):
    """Information propagation (infopro)."""

    method: Literal["infopro"] = "infopro"
    label_loss: Literal["softmax", "contrast"] = setting(
        "contrast", "what blocks learn from the labels: their classifier's cross-entropy, or which images share one"
    )
    reconstruction_weight_first: float = setting(5.0, "weight of drawing the image, first block", ge=0)
    reconstruction_weight_last: float = setting(0.2, "the same in the block before the last", ge=0)
    label_weight_first: float = setting(0.05, "weight of the loss with labels, first block", ge=0)
    label_weight_last: float = setting(0.5, "the same in the block before the last", ge=0)
    contrast_temperature: float = setting(0.07, "temperature of contrastive losses", gt=0)
    pred_aux_type: HeadKind = setting("1c2f", "head of every block but the last")
    aux_mlp_hidden_dim: int = setting(
        128, "width of its hidden layers (mlp_sr and cnn_full have their own)", ge=1,
        needs={"pred_aux_type": WITH_FREE_WIDTH, "aux_mlp_n_hidden_layers": POSITIVE},
    )  # fmt: skip

    @property
    def contrasts_labels(self) -> bool:
        """By its own loss, or by the family's."""
        return self.label_loss == "contrast" or super().contrasts_labels

    @property
    def cpc_alone(self) -> bool:
        """Whether that may be so at one of the ends."""
        labels = [self.label_weight_first, self.label_weight_last]
        if self.ssl and self.pred_loss_weight == 0:
            labels = [0, 0]
        pixels = (self.reconstruction_weight_first, self.reconstruction_weight_last)
        return not self.has_other_task and not all(map(max, labels, pixels))

    @model_validator(mode="after")
    def _something_to_learn(self) -> InfoproArgs:
        for end in ("first", "last"):
            names = [f"reconstruction_weight_{end}", f"label_weight_{end}"]
            if not self.has_task and not any(getattr(self, name) for name in names):
                raise ValueError(f"--{names[0]} 0 and --{names[1]} 0 leave a block nothing to learn from")
        if self.label_loss == "contrast" and self.pred_aux_type == "linear":
            raise ValueError(
                "--label_loss contrast with --pred_aux_type linear: its weights start at zero, where all "
                "images are alike and nothing tells them apart; choose another head"
            )
        return self


class CriticArgs(LocalArgs):
    """Local critics (critic)."""

    method: Literal["critic"] = "critic"
    pred_aux_type: HeadKind = setting("conv", "critic of every block but the last")
    aux_mlp_hidden_dim: int = setting(
        128, "width of its hidden layers (mlp_sr and cnn_full have their own)", ge=1,
        needs={"pred_aux_type": WITH_FREE_WIDTH, "aux_mlp_n_hidden_layers": POSITIVE},
    )  # fmt: skip
    cascade_loss_weight: float = setting(
        1.0, "weight of what a critic learns from; for SGD the critics' learning rate in units of the blocks'", ge=0,
        needs={"optimizer_type": ("SGD",)},
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_teacher(self) -> CriticArgs:
        if self.overlap:
            raise ValueError("--overlap has no place in --critic: a block learns from its own critic alone")
        if self.man:
            raise ValueError("--man has no place in --critic: its heads would learn from weights of the next block")
        if self.sequential:
            raise ValueError("--sequential has no place in --critic: a critic learns from the losses of the next block")
        if self.coarse_labels_first:
            raise ValueError(
                "--coarse_labels_first has no place in --critic: a critic's losses are to be those of the next one, so "
                "all must learn the same labels"
            )
        return self


class DniArgs(MethodArgs):
    """Synthetic gradients (dni, cdni)."""

    method: Literal["dni"] = "dni"
    context: bool = setting(False, "give the synthesiser the labels")


class CdniArgs(DniArgs):
    """Synthetic gradients from output and label (cdni)."""

    method: Literal["cdni"] = "cdni"  # type: ignore[assignment]
    context: bool = setting(True, "give the synthesiser the labels")


SECTIONS: dict[str, type[Section]] = {
    "model": ModelArgs, "method": MethodArgs, "data": DataArgs, "optim": OptimArgs, "run": RunArgs,
}  # fmt: skip


# What may differ between a run and its continuation: where things are shown or computed, not what is learned.
HARMLESS = frozenset(RunArgs.model_fields) - {"precision", "compile", "num_replicas", "async_buffer"} | {
    "data_dir", "download"
}  # fmt: skip


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

    @model_validator(mode="after")
    def _modules_exist(self) -> Args:
        method, count = self.method, NETWORKS[self.model.model].num_blocks
        if not isinstance(method, ModuleArgs):
            return self
        first = method.first_trainable_block % count
        trained = f"{self.model.model} has {count} blocks" + (f", {first} of them frozen" if first else "")
        if method.num_modules is not None and method.num_modules > count - first:
            raise ValueError(f"--num_modules {method.num_modules}: {trained}, so it can be at most {count - first}")
        ends = {*method.module_ends, count - 1}
        if min(ends) < first or max(ends) >= count:
            words = ",".join(map(str, method.module_ends))
            raise ValueError(f"--module_ends {words}: {trained}, so they must lie in {first} to {count - 1}")
        num_modules = self.num_modules
        if method.overlap >= num_modules:
            there = f"there are {num_modules} modules" if num_modules > 1 else "there is one module"
            raise ValueError(f"--overlap {method.overlap}: {there}, so it can be at most {num_modules - 1}")
        return self

    @model_validator(mode="after")
    def _replicas_share_batches(self) -> Args:
        size, count = self.optim.batch_size, self.run.num_replicas
        if size % count or size < 2 * count:
            raise ValueError(
                f"--num_replicas {count}: they share a batch equally, each at least two images, but --batch_size is "
                f"{size}"
            )
        return self

    @model_validator(mode="after")
    def _phases_are_equal(self) -> Args:
        if not isinstance(self.method, SequentialArgs) or not self.method.sequential:
            return self
        epochs, count = self.optim.epochs, self.num_modules
        if epochs % count:
            below, above = epochs // count * count, -(-epochs // count) * count
            near = f"{below} or {above}" if below else above
            raise ValueError(
                f"--sequential shares --epochs {epochs} among {count} blocks in turn, so it must be a multiple of "
                f"{count}, as {near}"
            )
        if self.optim.warmup_epochs >= epochs // count:
            raise ValueError(
                f"--warmup_epochs {self.optim.warmup_epochs:g} must be below the {epochs // count} epochs that "
                "--sequential gives a block"
            )
        if self.run.layer_parallel != "off":
            raise ValueError("--sequential and --layer_parallel exclude each other: only one block learns at a time")
        return self

    @model_validator(mode="after")
    def _can_contrast(self) -> Args:
        method, data = self.method, self.data
        if not isinstance(method, SslArgs):
            return self
        if method.contrasts_labels and self.optim.batch_size < 3:
            raise ValueError(
                f"--batch_size {self.optim.batch_size}: a contrastive loss with labels is always 0 there, it needs at "
                "least 3 images, one to find and one to find it among"
            )
        if method.simclr_loss_weight > 0:
            if not (data.random_crop or data.random_resized_crop or data.random_horizontal_flip or data.random_erasing):
                raise ValueError(
                    "--simclr_loss_weight compares two augmentations of an image, and nothing is augmented here; give "
                    "--random_crop, --random_resized_crop, --random_horizontal_flip or --random_erasing"
                )
            if "alignment" in self.run.diagnostics:
                raise ValueError(
                    "--diagnostics alignment looks at images as they are, and --simclr_loss_weight needs two "
                    "augmentations of each; leave one of them out"
                )
        return self

    @property
    def num_modules(self) -> int:
        """Blocks that are trained, or the modules to which they are joined."""
        method, count = self.method, NETWORKS[self.model.model].num_blocks
        if isinstance(method, ModuleArgs) and method.num_modules is not None:
            return method.num_modules
        if isinstance(method, ModuleArgs) and method.module_ends:
            return len({*method.module_ends, count - 1})
        return count - method.first_trainable_block % count

    @property
    def num_skipped_blocks(self) -> int:
        """Blocks at the input of which only the pools stay."""
        method = self.method
        return method.first_trainable_block % NETWORKS[self.model.model].num_blocks if method.skip_frozen_blocks else 0

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant, a line each."""
        shifted = isinstance(self.method, SslArgs) and self.method.ssl and self.method.ssl_task == "shift"
        if shifted and self.model.padding_mode == "zeros":
            return [
                "--shift_ssl_labels with --padding_mode zeros: the shift wraps around the image, and beyond a border "
                "of zeros no block can see what it is to draw there; --padding_mode circular lets it"
            ]
        return []

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
