"""Two sections that every run has whatever its network, rule and data: optimisation, and the run itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from consts import DEVICE, PROJECT
from sections.fields import NO_NUL, POSITIVE, Above, Holding, Other, Section, list_from_text, setting

PARALLEL = {"layer_parallel": ("threads", "processes", "streams")}
WANDB = {"wandb": Other("disabled")}
_RATED = {"optimizer_type": Other("Rprop")}  # which finds the step sizes itself


class OptimArgs(Section):
    """Optimisation."""

    epochs: int = setting(20, "passes over the training images", ge=1)
    batch_size: int = setting(128, "images per step", unit="images", ge=2)
    accumulate: int = setting(
        1, "equal parts of a batch, computed one after the other for a step with the mean of their gradients: less "
        "memory; BatchNorm, and losses that compare images, see a part",
        ge=1, on=Above(1),
        excludes={
            "layer_parallel": (("threads", "processes", "streams"), "a stage works on whole batches"),
            "num_replicas": (Above(1), "each computes its own part of a batch already"),
            "cuda_graph": (("on",), "a graph holds a whole step; give --cuda_graph auto"),
        },
    )  # fmt: skip
    optimizer_type: Literal["SGD", "Adam", "AdamW", "SignSGD", "Rprop"] = setting(
        "SGD", "optimiser; SignSGD: SGD with the signs of the gradients; Rprop: for whole batches (--batch_size of all "
        "training images, perhaps with --accumulate), since it compares signs from step to step; it begins with steps "
        "of --learning_rate",
        on=("Rprop",), excludes={"cuda_graph": (("on",), "torch's Rprop counts steps on the host")},
    )  # fmt: skip
    learning_rate: float = setting(0.05, "peak learning rate", gt=0)
    first_rate_scale: float = setting(
        1.0, "learning rate of the first block that learns in units of the last's; geometric in between", gt=0,
        needs={"trained_modules": Above(1)},
    )  # fmt: skip
    momentum: float = setting(0.9, "momentum", ge=0, lt=1, needs={"optimizer_type": ("SGD", "SignSGD")})
    nesterov: bool = setting(
        True, "Nesterov's form of the momentum", needs={"optimizer_type": ("SGD", "SignSGD")},
        requires={"momentum": (POSITIVE, "without momentum give --no_nesterov")},
    )  # fmt: skip
    weight_decay: float = setting(
        5e-4, "weight decay (decoupled with AdamW; with SignSGD behind the sign)", ge=0, needs=_RATED
    )
    lr_schedule: Literal["constant", "multistep", "cosine", "one_cycle"] = setting(
        "one_cycle", "course of the learning rate", needs=_RATED
    )
    lr_milestones: tuple[float, ...] = setting(
        (0.5, 0.75),
        "when multistep multiplies by lr_gamma",
        unit="fraction of the run",
        needs={"lr_schedule": ("multistep",)},
    )
    lr_gamma: float = setting(0.1, "factor of every multistep drop", gt=0, lt=1, needs={"lr_schedule": ("multistep",)})
    warmup_epochs: float = setting(
        0.0, "warm-up from almost zero (0 with one_cycle: three tenths of the run)", unit="epochs", ge=0, needs=_RATED
    )
    gradient_clip: float = setting(
        0.0, "largest gradient norm of a block, its heads included (0: no clipping)", ge=0,
        needs={"optimizer_type": ("SGD", "Adam", "AdamW")},
    )  # fmt: skip
    seed: int = setting(0, "seed of initialisation, order, augmentation and dropout", ge=0, lt=2**31)
    deterministic: bool = setting(False, "refuse GPU kernels whose result varies from run to run")

    @field_validator("lr_milestones", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        return list_from_text(value)

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
        return self


class RunArgs(Section):
    """Run."""

    device: Annotated[str, Field(pattern=DEVICE)] = setting("auto", "auto (a GPU where there is one), cpu, cuda:0, ...")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = setting(
        "auto",
        "arithmetic of the blocks; auto: bf16 where the device has it natively, else fp32; tf32: fp32 with factors "
        "rounded to TF32, on GPUs of compute capability 8.0 or higher",
        on=("tf32",),
        excludes={"device": (("cpu",), "TF32 is arithmetic of GPUs; give --precision fp32")},
    )
    layer_parallel: Literal["off", "threads", "processes", "streams"] = setting(
        "off",
        "train stages of blocks at the same time, with bit-identical results to sequential training (local methods): "
        "in threads on a CPU, in processes, or in streams of one GPU",
        on=Other("off"),
        requires={"blocks_alone": ((True,), "")},
        excludes={"cuda_graph": (("on",), "layer-parallel layouts choose it themselves")},
    )
    num_stages: int = setting(
        2, "stages, cut where measured times are most even", ge=1, needs=PARALLEL | {"stages": (None,)}
    )
    stages: Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")] | None = setting(
        None, "blocks of every stage, as 0-2,3-7", shown="measured", needs=PARALLEL
    )
    num_replicas: int = setting(
        1,
        "processes that take equal shares of each batch and average their gradients, on GPUs one each; with "
        "--layer_parallel processes as many for every stage; losses that compare images (similarity, contrasts) know "
        "the share only",
        ge=1,
        on=Above(1),
        excludes={
            "layer_parallel": (("threads", "streams"), "these are one process; give --layer_parallel processes or off"),
            "cuda_graph": (("on",), "gradients are averaged between backward pass and update; give --cuda_graph auto"),
        },
    )
    sync_bn: bool = setting(
        False, "BatchNorm learns with the statistics of the whole batch, not of a replica's share",
        needs={"num_replicas": Above(1)},
        excludes={"compile": ((True,), "compiled layers have statistics of their own")},
    )  # fmt: skip
    async_buffer: int = setting(
        0,
        "let no stage wait for another: it reads from a buffer that drops and reuses; other bits in every run (0: off)",
        unit="batches",
        ge=0,
        needs={"layer_parallel": ("threads",)},
    )
    compile: bool = setting(False, "compile every block with torch.compile (minutes at the start)")
    cuda_graph: Literal["auto", "on", "off"] = setting(
        "auto",
        "run a whole training step as one CUDA graph, with the same bits; auto: on a GPU, where a step allows it",
        on=("off",),
        excludes={"layer_parallel": (("streams",), "streams run CUDA graphs side by side")},
    )
    path: str = setting("experiments", "folder of the run folders", min_length=1, pattern=NO_NUL)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = setting(
        "", "letters, digits, dots, dashes and underscores to add to the run folder's name"
    )
    wandb: Literal["auto", "online", "offline", "disabled"] = setting(
        "auto", "where wandb logs; auto: online when logged in, else offline"
    )
    wandb_project: Annotated[str, Field(pattern=r"^[^/\\#?%:\x00-\x1f]+$", max_length=128)] | None = setting(
        None, "project of the run on wandb, at most 128 letters and none of / \\ # ? % :",
        shown=f"$WANDB_PROJECT, or {PROJECT}", needs=WANDB,
    )  # fmt: skip
    wandb_group: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=128)] | None = setting(
        None,
        "group of the run on wandb, at most 128 letters",
        shown="$WANDB_RUN_GROUP, or method, model and data set; of a sweep its folder",
        needs=WANDB,
    )
    tensorboard: bool = setting(
        False, "write the metrics for TensorBoard as well, into the run folder (needs the extra [tensorboard])"
    )
    log_interval: int = setting(50, "steps between two lines of training metrics", unit="steps", ge=1)
    diagnostics: tuple[Literal["alignment", "probes", "filters", "cka", "confusion"], ...] = setting(
        (),
        "what to look at after every epoch: gradients and signals against back-prop's, linear probes of every block, "
        "the first kernels, similarity of the blocks, labels against guesses",
        shown="none",
        on=Holding("alignment"),
        requires={"classifier": ((True,), "alignment compares with the gradient of the classification loss")},
    )
    progress_bar: bool = setting(True, "draw a progress bar (in a terminal)")
    resume: str | None = setting(
        None, "go on with this run folder; auto: the newest run of the same settings, or a new one where there is none"
    )

    @property
    def stage_count(self) -> int:
        """How many stages there are; 1 without ``--layer_parallel``."""
        if self.layer_parallel == "off":
            return 1
        return self.num_stages if self.stages is None else len(self.stages.split(","))

    @field_validator("diagnostics", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        return list_from_text(value)
