"""Small networks and batches that the whole suite shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

import methods
import reports
from cli import code
from consts import NETWORKS
from datamodules.base import Batch, DataSpec
from methods._base import Method
from model import Backbone, Shape, mlp
from networks import build_backbone
from networks.table import convolutional_block
from schemas import ModelArgs, build_args, method_sections
from sections.task import TASKS
from sections.tasks._base import TaskArgs
from utils import UsageError, code_file, short_name

CLASSES = tuple("abcde")
RULES = dict(method_sections())  # with --rule, that rule alone


def of_task(section: type[TaskArgs]) -> dict[str, object]:
    """Settings that switch a task on, with the settings that it requires."""
    return {section.weight_name(): 0.5} | dict.fromkeys(section.REQUIRES, True)


def of_choices(rule: str, name: str, **others: object) -> dict[str, tuple[str, dict[str, object]]]:
    """A case for every word of a setting but its default, with ``others``."""
    field = RULES[rule].model_fields[name]
    words = [word for word in get_args(field.annotation) if word != field.default]
    return {f"{rule} {word}": (rule, {name: word} | others) for word in words}


SHORT = {"free_steps": 6, "nudged_steps": 3}  # phases of a network that settles

# Every method, dgl with every task, and every setting that makes another training rule of one: method and settings by a
# name, in which the words of a task's or a rule's name are those of its file.
CASES: dict[str, tuple[str, dict[str, object]]] = (
    {name: (name, {}) for name in methods.names()}
    | {f"dgl {name}": ("dgl", of_task(section)) for name, section in TASKS.items()}
    | {
        "dgl pooled": ("dgl", {"pred_aux_type": "pooled"}),
        "dgl channelwise": ("dgl", {"pred_aux_type": "channelwise"}),
        "dgl lls": ("dgl", {"pred_aux_type": "lls"}),
        "dgl random": ("dgl", {"pred_aux_type": "random"}),
        "dgl monoforward": ("dgl", {"pred_aux_type": "monoforward"}),
        "dgl direct global": ("dgl", {"is_direct_global": True}),
        "dgl ssl": ("dgl", {"ssl": True}),
        "dgl ssl bilinear": ("dgl", {"ssl": True, "upsample": True, "upsample_type": "bilinear"}),
        "dgl ssl shift alone": ("dgl", {"ssl": True, "ssl_task": "shift", "upsample": True, "pred_loss_weight": 0}),
        "dgl ssl rotate": ("dgl", {"ssl": True, "ssl_task": "rotate"}),
        "dgl ssl inpaint": ("dgl", {"ssl": True, "ssl_task": "inpaint"}),
        "dgl ssl colourise": ("dgl", {"ssl": True, "ssl_task": "colourise", "upsample": True}),
        "predsim local classifier": ("predsim", {"local_classifier": True}),
        "predsim ssl": ("predsim", {"ssl": True, "upsample": True}),
        "predsim bio": ("predsim", {"bio": True}),
        "infopro softmax": ("infopro", {"label_loss": "softmax"}),
        "infopro ssl": ("infopro", {"ssl": True, "ssl_task": "rotate", "label_weight_first": 0}),
        "critic normalised": ("critic", {"pred_aux_type": "cnn", "cascade_loss_weight": 0.1}),
        "critic ssl": ("critic", {"ssl": True, "ssl_task": "rotate"}),
        "dgl ssl supcon": ("dgl", {"ssl": True, "supcon_loss_weight": 0.5}),
        "predsim supcon": ("predsim", {"supcon_loss_weight": 0.5}),
        "dgl ssl supcon simclr": (
            "dgl",
            {"ssl": True, "ssl_task": "rotate", "supcon_loss_weight": 0.5, "simclr_loss_weight": 1},
        ),
        "dgl simclr overlap": ("dgl", {"simclr_loss_weight": 0.5, "overlap": 1}),
        "infopro simclr": ("infopro", {"simclr_loss_weight": 0.5}),
        "predsim cpc": ("predsim", {"cpc_loss_weight": 0.5}),
        "dgl auglocal": ("dgl", {"pred_aux_type": "auglocal"}),
        "dgl man": ("dgl", {"man": True}),
        "infopro man": ("infopro", {"man": True}),
        "dgl overlap": ("dgl", {"overlap": 1}),
        "dgl ssl overlap": ("dgl", {"overlap": 1, "ssl": True, "ssl_task": "rotate"}),
        "predsim overlap": ("predsim", {"overlap": 2}),
        "dni lambda": ("dni", {"bp_lambda": 0.5}),
        "dni forward": ("dni", {"unlock": "forward"}),
        "fa without derivatives": ("fa", {"ignore_derivative": True}),
        "dfa without derivatives": ("dfa", {"ignore_derivative": True}),
        "tp without difference": ("tp", {"target_rule": "tp"}),
        "tp sdtp": ("tp", {"target_rule": "sdtp"}),
        "tp ao_sdtp": ("tp", {"target_rule": "ao_sdtp", "auxiliary_outputs": 7}),
        "ldrl steps": ("ldrl", {"inverse_steps": 3}),
        "dualprop sweeps": ("dualprop", {"nudge": 1.0, "mixture": 0.0, "sweeps": 3}),
    }
    | {"es subspace": ("es", {"subspace": 3})}
    | of_choices("es", "noise")
    | {"foton frozen": ("foton", {"refresh": 0})}
    | {"fg local weight": ("fg", {"guess": "local", "perturb": "weight"})}
    | of_choices("fg", "perturb")
    | of_choices("fg", "guess")
    | of_choices("fa", "feedback")
    | of_choices("dfa", "feedback")
    | of_choices("ff", "goodness_loss")
    | of_choices("ff", "label_in")
    | of_choices("sigprop", "signal_score")
    | of_choices("dualprop", "feedback")
    | {"pc": ("pc", {"inference_steps": 2}), "ep": ("ep", {"inference_steps": 2})}
    | of_choices("pc", "inference", inference_steps=3, inference_rate=0.3)
    | of_choices("ep", "nudging", inference_steps=2)
    | {
        "hopfield": ("hopfield", SHORT),
        "hopfield hebbian": ("hopfield", SHORT | {"nudging": "one_sided", "nudge": 1.0, "output_feedback": True}),
    }
    | of_choices("hopfield", "nudging", **SHORT)
)


# Those that train one block after the other; they promise other things than the rest.
PHASED: dict[str, tuple[str, dict[str, object]]] = {
    f"{case} sequential": (CASES[case][0], CASES[case][1] | {"sequential": True, "epochs": 21})
    for case in ("dgl", "dgl ssl", "dgl ssl rotate", "dgl supcon", "predsim", "predsim local classifier", "infopro")
}

# What --rule runs: what every rule promises, and that no flag is without effect.
CONTRACT = [Path(__file__).parent / "methods" / name for name in ("test_contract.py", "test_flags.py")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rule", metavar="FILE", help="what every rule promises, of one of your own: --rule=path/rule.py")


def pytest_configure(config: pytest.Config) -> None:
    if file := config.getoption("--rule"):
        try:
            if code_file(file) is None:
                raise UsageError(f"--rule {file}: allowed is the path of a file that ends in .py")
            rule = code.named(file, "--rule")
            section = method_sections(rule)[rule]
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
        for known, own in ((RULES, {rule: section}), (CASES, {short_name(rule): (rule, {})})):
            known.clear()
            known.update(own)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    other = collection_path.suffix == ".py" and collection_path not in CONTRACT
    return True if config.getoption("--rule") and other else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--rule"):
        items[:] = [item for item in items if {"case", "rule"} & getattr(item, "callspec", CASES).params.keys()]


# The networks are tiny, and threads that wait for one another make tests slow on a busy machine; so are those of the
# processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def make_spec(size: int = 8, channels: int = 3) -> DataSpec:
    return DataSpec("test", channels, size, size, CLASSES, (0.5,) * channels, (0.5,) * channels)


def make_batch(size: int = 8, channels: int = 3, num_images: int = 6, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(7)
    x_BCHW = torch.randn(num_images, channels, size, size, generator=generator, dtype=dtype)
    y_B = torch.randint(len(CLASSES), (num_images,), generator=generator)
    noise_BCHW = torch.randn(num_images, channels, size, size, generator=generator, dtype=dtype)
    return Batch(x_BCHW, y_B, x_BCHW.flip(3) + 0.1 * noise_BCHW)


def strided_backbone(dropout: float = 0.0, stride: int = 2) -> Backbone:
    """Three blocks with a stride, pools, BatchNorm and a classifier with a hidden layer."""
    args = ModelArgs(model="BasicCNN", dropout_prob=dropout)
    first = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=args)
    second = convolutional_block(first.out_shape, 6, 3, pool=False, args=args)
    second.features[0] = nn.Conv2d(4, 6, 3, stride=stride, padding=1)
    second.features_shape = second.out_shape = Shape(6, 4 // stride, 4 // stride)
    third = convolutional_block(second.out_shape, 5, 3, pool=True, args=args)
    return Backbone([first, second, third], mlp(third.out_shape.num_features, len(CLASSES), 1, 7))


def backbone_of(case: str) -> Backbone:
    """The network of a case; predictive coding needs maps of three rows."""
    return strided_backbone(stride=1 if "cpc" in case else 2)


def make_method(case: str, backbone: Backbone | None = None, size: int = 8, **settings: object) -> Method:
    """A method, or one of `CASES`, in float64 on ``backbone`` (default: `backbone_of` it).

    It always has the same initial weights; ``size`` is that of the images.
    """
    torch.manual_seed(0)
    backbone = backbone or backbone_of(case)
    name, own = (CASES | PHASED)[case]
    given = {"method": name, "aux_mlp_hidden_dim": 9} | own | settings
    if "overlap" in own:  # no more than there are trained blocks below
        given["overlap"] = min(own["overlap"], 2 - given.get("first_trainable_block", 0) % 3)
    if given.get("first_trainable_block"):  # it excludes synthetic inputs
        given.pop("unlock", None)
    args = build_args(given)
    return methods.load(name)(args.method, backbone, make_spec(size)).double()


def seed(case: str) -> None:
    """What the engine does before every step, for the cases that draw; the others must do without."""
    draw = {"inpaint", "cpc", "brsf", "weight_mirror", "tp", "ldrl", "ddtp", "fg", "ff", "random_sign", "es"}
    if draw & {*case.split()}:
        torch.manual_seed(1)


def gradients(method: Method) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in method.named_parameters()}


def losses_of_training(method: Method, rate: float, steps: int) -> list[float]:
    """The network's loss before each of some steps of plain SGD on one batch."""
    batch, losses, optimizer = make_batch(), [], torch.optim.SGD(method.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(method.fill_grads(batch).losses[-1].item())
        optimizer.step()
    return losses


def assert_the_same_beside_its_copy(single: Method, double: Method) -> None:
    """Each image beside its copy: the batch is twice as large, the gradient is the same."""
    batch = make_batch()
    single.fill_grads(batch)
    double.fill_grads(batch._replace(x_BCHW=torch.cat([batch.x_BCHW] * 2), y_B=torch.cat([batch.y_B] * 2)))
    for key, gradient in gradients(single).items():
        torch.testing.assert_close(gradients(double)[key], gradient, rtol=1e-9, atol=1e-12, msg=key)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> str:
    """A network that trains in a blink, reachable from the command line."""
    monkeypatch.setitem(NETWORKS, "VGGs", NETWORKS["VGGs"]._replace(mlp_hidden_dim=16))
    return "VGGs"


def build(name: str, size: int = 32, channels: int = 3) -> Backbone:
    return build_backbone(ModelArgs(model=name), make_spec(size, channels))


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no plots and no page, which take two thirds of so short a run, but for tests marked ``pictures``."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(reports, "refresh", lambda folder: None)
