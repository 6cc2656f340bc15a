"""Constants of the whole system, each with its source.

Shape suffixes used in names: ``B`` batch, ``C`` channels, ``H`` height, ``W`` width, ``N`` classes, ``L`` blocks,
``D`` features, ``P`` images of a data set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# --- networks -------------------------------------------------------------------------------------------------------

POOL = "M"


class Architecture(NamedTuple):
    """What distinguishes one network from another.

    Attributes:
        channels: widths in order; ``"M"`` is a 2x2 max-pool that belongs to the block before it.
        kernel_size: side of every convolution kernel, in pixels; padding keeps the size.
        mlp_n_hidden_layers: hidden layers of the classifier, where the flag does not say otherwise.
        mlp_hidden_dim: their width.
        residual: whether every block but the first is a residual one of two convolutions. Then a map is halved where
            the width grows, and the classifier sees the average over the last map.
        local: whether every position has weights of its own, in place of convolutions.
        patches: what a unit of a block sees, for networks whose number of blocks and width are settings: ``image``, all
            of the block before, or ``tree``, a patch that overlaps no other.
    """

    channels: tuple[int | str, ...] = ()
    kernel_size: int = 3
    mlp_n_hidden_layers: int = 1
    mlp_hidden_dim: int = 1024
    residual: bool = False
    local: bool = False
    patches: str = ""

    @property
    def num_blocks(self) -> int:
        """Number of blocks, one per width; 0 where it is a setting."""
        return sum(entry != POOL for entry in self.channels)

    @property
    def num_halvings(self) -> int:
        """How often the map is halved; the input must be at least ``2 ** num_halvings`` pixels wide."""
        return len({*self.channels}) - 1 if self.residual else len(self.channels) - self.num_blocks


def _plain(text: str, **settings: Any) -> Architecture:
    return Architecture(tuple(word if word == POOL else int(word) for word in text.split()), **settings)


def _resnet(depth: int) -> Architecture:
    """He et al. (arXiv 1512.03385, section 4.2): a convolution, three stages of (depth - 2) / 6 residual blocks."""
    widths = (16, *(width for width in (16, 32, 64) for _ in range((depth - 2) // 6)))
    return Architecture(widths, mlp_n_hidden_layers=0, residual=True)


# BasicCNN: the first network of AlonNT/Thesis (commit f92ea47). The others are its VGG table (commit dbd2533): the
# plain names are Simonyan & Zisserman (arXiv 1409.1556, table 1) with a linear classifier on the 1x1 map that five
# pools leave of 32x32; "c" has three pools; "b" is Nokland & Eidnes (arXiv 1901.06656); "s" are small three-block ones.
NETWORKS: dict[str, Architecture] = {
    "BasicCNN": _plain("128 M 128 M 128 M", kernel_size=5, mlp_hidden_dim=256),
    "VGGs": _plain("8 M 16 M 32 M"),
    "VGGsw": _plain("64 M 128 M 256 M"),
    "BasicLC": _plain("64 M 128 M 256 M", local=True),  # VGGsw, but positions share no weights
    "VGGsxw": _plain("128 M 256 M 512 M"),
    "VGG8b": _plain("128 256 M 256 512 M 512 M 512 M"),
    "VGG8c": _plain("64 128 M 256 256 M 512 512 M"),
    "VGG11": _plain("64 M 128 M 256 256 M 512 512 M 512 512 M", mlp_n_hidden_layers=0),
    "VGG11b": _plain("128 128 128 256 M 256 512 M 512 512 M 512 M"),
    "VGG11c": _plain("64 128 M 256 256 M 512 512 512 512 M"),
    "VGG13": _plain("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M", mlp_n_hidden_layers=0),
    "VGG13c": _plain("64 64 128 128 M 256 256 M 512 512 512 512 M"),
    "VGG16": _plain("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M", mlp_n_hidden_layers=0),
    "VGG16c": _plain("64 64 128 128 M 256 256 256 M 512 512 512 512 512 512 M"),
    "VGG19": _plain("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M", mlp_n_hidden_layers=0),
    "VGG19c": _plain("64 64 128 128 M 256 256 256 256 M 512 512 512 512 512 512 512 512 M"),
    "ResNet20": _resnet(20),
    "ResNet32": _resnet(32),
    "ResNet56": _resnet(56),
    "ResNet110": _resnet(110),
    "MLP": Architecture(mlp_n_hidden_layers=0, patches="image"),
    "TreeCNN": Architecture(mlp_n_hidden_layers=0, patches="tree"),
    "TreeLC": Architecture(mlp_n_hidden_layers=0, patches="tree", local=True),
}

# --- data sets ------------------------------------------------------------------------------------------------------


class DataFacts(NamedTuple):
    """What is known of a data set before it is read.

    Attributes:
        mean: per-channel mean of the training images in [0, 1]; empty where it is measured when the data are read.
        std: per-channel standard deviation, likewise.
        random_crop: whether a padded random crop keeps the label, the default of ``--random_crop``.
        random_horizontal_flip: whether a mirror image keeps the label, the default of ``--random_horizontal_flip``.
        on_disk: False for data that come with the code, for which ``--data_dir`` has no meaning.
        downloadable: whether torchvision knows where to fetch it.
        is_own: whether it is the user's, so that ``--data_dir`` says what the data are.
        generated: whether it is drawn from a distribution, with settings of its own (``sections/datasets``).
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    random_crop: bool = True
    random_horizontal_flip: bool = True
    on_disk: bool = True
    downloadable: bool = True
    is_own: bool = False
    generated: bool = False


_GENERATED = DataFacts(
    random_crop=False, random_horizontal_flip=False, on_disk=False, downloadable=False, generated=True
)

# CIFAR-10 statistics: AlonNT/Thesis commit 847a141 and kuangliu/pytorch-cifar. CIFAR-100: weiaicunzai/pytorch-cifar100.
# The others were not taken from anywhere: they are measured from the training images when they are loaded.
DATASETS: dict[str, DataFacts] = {
    "cifar10": DataFacts((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": DataFacts((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "mnist": DataFacts(random_horizontal_flip=False),
    "fashion_mnist": DataFacts(),
    "svhn": DataFacts(random_horizontal_flip=False),
    "folder": DataFacts(downloadable=False, is_own=True),
    "arrays": DataFacts(downloadable=False, is_own=True),
    "digits": DataFacts(random_horizontal_flip=False, on_disk=False, downloadable=False),
    "parity": _GENERATED,
    "boolean_circuit": _GENERATED,
    "random_hierarchy": _GENERATED,
    "hierarchical_digits": _GENERATED,
}

# Super-classes of CIFAR-10 by class name, coarse to fine, for --coarse_labels_first: its two halves, then pairs that
# share a setting or a build. The pairs are ours.
SUPER_CLASSES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("airplane", "automobile", "ship", "truck"), ("bird", "cat", "deer", "dog", "frog", "horse")),
    (("airplane", "ship"), ("automobile", "truck"), ("bird", "frog"), ("cat", "dog"), ("deer", "horse")),
)

CROP_PADDING = 4  # pixels of zeros on each side before a random crop (He et al., arXiv 1512.03385, section 4.2)

# --- names of metrics, built here and nowhere else ------------------------------------------------------------------

TRAIN, VAL, TEST = "train", "val", "test"
LOSS, ACCURACY = "loss", "accuracy"
INSIDE = "inside"  # stands for the split in the names of what --diagnostics measures
ALIGNMENT, GRADIENT_RATIO = "alignment", "gradient_ratio"
# Of signals with those of back-propagation, and of feedback with forward weights: cosine, angle in degrees, norm ratio.
SIGNAL = ("signal_cosine", "signal_angle", "signal_ratio")
FEEDBACK = ("feedback_cosine", "feedback_angle", "feedback_ratio")
PROBE_ACCURACY, CKA = "probe_accuracy", "cka_"  # the second begins a name: inside/block_00/cka_block_02
# The parts of a block's loss where it has several, without their weights; those of tasks are made by `loss_name`.
PRED_LOSS = "pred_loss"  # the method's own
CASCADE_LOSS = "cascade_loss"  # what a critic learns from; no part of its block's
INVERSE_LOSS = "inverse_loss"  # what an inverse learns from
ENERGY = "energy"  # of a relaxed block's error; infinite where relaxing has raised the energy of the network
RECONSTRUCTION = "reconstruction_error"  # of an inverse, over the mean square of what it reconstructs


def block_name(index: int) -> str:
    """Name of block ``index`` (from 0) in metrics, parameter groups and state dicts: ``block_03``."""
    return f"block_{index:02d}"


def loss_name(task: str) -> str:
    """Name of the loss of an auxiliary task: ``supcon_loss``."""
    return f"{task}_{LOSS}"


def metric_name(split: str, quantity: str, block: int | None = None) -> str:
    """Name of a metric: ``train/loss``, or ``train/block_03/loss`` for one block. Accuracies are percentages."""
    return f"{split}/{quantity}" if block is None else f"{split}/{block_name(block)}/{quantity}"


FILTERS = "filters"  # name of the picture of the first convolution's kernels
CONFUSION = "confusion"  # name of the table and the picture of labels and guesses
RECONSTRUCTIONS = "reconstructions_"  # begins the name of the picture of what a block's decoder draws


# --- run folder -----------------------------------------------------------------------------------------

NAME, VERSION = "Beyond Backprop", "0.1.0"
PROGRAM = "main.py"
DEVICE = r"^(auto|cpu|cuda(:\d{1,3})?)$"  # what --device allows
VERBS = ("report", "evaluate", "sweep", "export")  # the first word of a command that does not train
PROJECT = "beyond-backprop"
CONFIG_FILE, COMMAND_FILE, ENVIRONMENT_FILE = "config.yaml", "command.txt", "environment.json"
DATA_FILE = "data.json"
METRICS_FILE, SUMMARY_FILE, LOG_FILE, REPORT_FILE = "metrics.jsonl", "summary.json", "run.log", "report.html"
TRIAL = "trial_"  # begins the name that a sweep gives a run
CHECKPOINT_DIR, PLOT_DIR, WANDB_DIR, TENSORBOARD_DIR = "checkpoints", "plots", "wandb", "tensorboard"
CODE_DIR = "code"
CODE_SETTINGS = ("method", "model")  # may name a Python file of the user's own; sections of these names hold them


def digest_name(setting: str) -> str:
    """The key in ``config.yaml`` of the SHA-256 of the Python file that a setting names, as ``method_sha256``."""
    return f"{setting}_sha256"


RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"  # `status` in summary.json
