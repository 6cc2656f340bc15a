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
from sections.method import DEFAULT_METHOD, AuxType, LocalArgs, MethodArgs, ModuleArgs, SslArgs
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
        for flag in ("ssl", "overlap", "supcon_loss_weight"):
            if self.is_direct_global and getattr(self, flag):
                raise ValueError(f"--is_direct_global and --{flag} exclude each other; give one")
        return self


class PredsimArgs(LocalArgs):
    """Prediction and similarity matching (predsim)."""

    method: Literal["predsim"] = "predsim"
    pred_aux_type: AuxType = setting(
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
    pred_aux_type: AuxType = setting("1c2f", "head of every block but the last")
    aux_mlp_hidden_dim: int = setting(
        128, "width of its hidden layers (mlp_sr has its own)", ge=1,
        needs={"pred_aux_type": ("mlp", "cnn", "pooled", "1c2f"), "aux_mlp_n_hidden_layers": POSITIVE},
    )  # fmt: skip

    @model_validator(mode="after")
    def _something_to_learn(self) -> InfoproArgs:
        for end in ("first", "last"):
            names = [f"reconstruction_weight_{end}", f"label_weight_{end}"]
            others = self.supcon_loss_weight or (self.ssl and self.ssl_loss_weight)
            if not others and not any(getattr(self, name) for name in names):
                raise ValueError(f"--{names[0]} 0 and --{names[1]} 0 leave a block nothing to learn from")
        if self.label_loss == "contrast" and self.pred_aux_type == "linear":
            raise ValueError(
                "--label_loss contrast with --pred_aux_type linear: its weights start at zero, where all "
                "images are alike and nothing tells them apart; choose another head"
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
HARMLESS = frozenset(RunArgs.model_fields) - {"precision", "compile"} | {"data_dir", "download"}


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
        num_modules = method.num_modules or (len(ends) if method.module_ends else count - first)
        if method.overlap >= num_modules:
            there = f"there are {num_modules} modules" if num_modules > 1 else "there is one module"
            raise ValueError(f"--overlap {method.overlap}: {there}, so it can be at most {num_modules - 1}")
        return self

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
