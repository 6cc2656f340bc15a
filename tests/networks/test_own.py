"""A network from a file: every rule trains it, and whatever is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from layers.convolution import Conv2d
from layers.dropout import Dropout
from model import Backbone
from networks import build_backbone
from schemas import ModelArgs
from sections.files import load_file
from tests.conftest import CASES, make_batch, make_method, make_spec
from tests.networks.conftest import NET
from utils import UsageError

OURS_ONLY = {"dgl auglocal", "predsim local classifier", "dgl cpc", "predsim cpc"}  # the last two: larger maps
OURS_ONLY |= {case for case in CASES if CASES[case][0] == "hopfield"}  # refuses a block with dropout inside


def build_own(path: Path, text: str = NET, function: str = "build", size: int = 8, **settings: object) -> Backbone:
    path.write_text(text)
    load_file(path, "")
    return build_backbone(ModelArgs(model=f"{path}:{function}", **settings), make_spec(size))


@pytest.mark.parametrize("case", [case for case in CASES if case not in OURS_ONLY])
def test_every_rule_fills_every_gradient(case: str, net: Path) -> None:
    method = make_method(case, build_own(net), size=8)
    method.train().fill_grads(make_batch())
    for group in method.param_groups():
        assert all(parameter.grad is not None for parameter in group["params"]), group["name"]
    logits_BN = method.eval()(make_batch().x_BCHW)
    assert logits_BN.shape == (6, 5) and logits_BN.isfinite().all()


def test_shapes_are_the_real_ones_and_nothing_is_computed(net: Path) -> None:
    network = build_own(net, size=24)
    assert all(not buffer.any() for name, buffer in network.named_buffers() if "num_batches" in name)
    h_BCHW = torch.randn(3, 3, 24, 24)
    for block, shape in zip(network.eval().blocks, network.out_shapes, strict=True):
        h_BCHW = block(h_BCHW)
        assert h_BCHW.shape[1:] == shape == block.features_shape
    assert network.classifier(h_BCHW).shape == (3, 5)


def test_dropout_gets_keys_and_convolutions_are_the_projects(net: Path) -> None:
    network = build_own(net)
    kinds = [type(layer) for layer in network.modules()]
    assert (kinds.count(Dropout), kinds.count(Conv2d), kinds.count(nn.Dropout), kinds.count(nn.Conv2d)) == (4, 3, 0, 0)
    for index in range(3):
        network.key_dropout(index, 10 * index)
    keys = [layer.key for layer in network.modules() if isinstance(layer, Dropout)]
    assert keys == [0, 10, 20, 21]  # the classifier is the last block's


def test_dropout_that_runs_twice_in_a_pass_keeps_drawing_anew(net: Path) -> None:
    twice = NET.replace("nn.Dropout(prob), nn.MaxPool2d(2)", "*2 * [nn.Dropout(prob)], nn.MaxPool2d(2)")
    kinds = [type(layer) for layer in build_own(net, twice).blocks.modules()]
    assert nn.Dropout in kinds and Dropout not in kinds


BUILD = "from torch import nn\ndef build(spec):\n    "
CONV = "nn.Conv2d(3, 4, 3, padding=1)"
WRONG = {
    "raises": ("1 / 0", "line 3 of net.py: ZeroDivisionError: division by zero"),
    "nothing": ("pass", "returned nothing; it must return a list of modules, the blocks, and a module, the classifier"),
    "blocks alone": (f"return [{CONV}]", "returned a list of 1; it must return"),
    "no block": ("return [], nn.Linear(3, 5)", "returned a list of 0 for the blocks; it must return"),
    "a function": (f"return [{CONV}, lambda x: x], nn.Linear(3, 5)", "element 1 of the blocks is a function; it must"),
    "no classifier": (f"return [{CONV}], None", "returned nothing for the classifier; it must return"),
    "no parameters": (
        f"return [{CONV}, nn.MaxPool2d(2)], nn.Linear(3, 5)",
        "block_01 (MaxPool2d) has no parameters that learn; put it into a block with some",
    ),
    "frozen": (f"return [{CONV}.requires_grad_(False)], nn.Linear(3, 5)", "block_00 (Conv2d) has no parameters that"),
    "shared": (
        "a = nn.Conv2d(3, 3, 1); return [a, nn.Sequential(a)], nn.Linear(3, 5)",
        "block_00 and block_01 share a parameter",
    ),
    "lazy": ("return [nn.LazyConv2d(4, 3)], nn.Linear(3, 5)", "block_00 has lazy layers; give them their sizes"),
    "blocks that do not fit": (
        f"return [{CONV}, nn.Conv2d(5, 6, 1)], nn.Linear(3, 5)",
        "block_01 on maps of (4, 8, 8): RuntimeError: ",
    ),
    "too small": (
        f"return [nn.Sequential({CONV}, nn.MaxPool2d(16))], nn.Linear(3, 5)",
        "block_00 on maps of (3, 8, 8): RuntimeError",
    ),
    "flat": (
        f"return [nn.Sequential({CONV}, nn.Flatten())], nn.Linear(256, 5)",
        "block_00 gives (2, 256) for a batch of 2 images, but a block hands on a map (B, C, H, W); what flattens",
    ),
    "classes": (
        f"return [{CONV}], nn.Sequential(nn.Flatten(), nn.Linear(256, 7))",
        "the classifier gives (2, 7) for a batch of 2 images, but the data have 5 classes, so it must give (2, 5)",
    ),
    "features": (
        f"return [{CONV}], nn.Sequential(nn.Flatten(), nn.Linear(255, 5))",
        "the classifier on maps of (4, 8, 8): RuntimeError: ",
    ),
    "in place": (
        f"return [{CONV}, nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))], nn.Linear(3, 5)",
        "block_01 overwrites its input, which belongs to what comes before; leave inplace out of its first layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case: str, net: Path) -> None:
    body, message = WRONG[case]
    with pytest.raises(UsageError) as caught:
        build_own(net, BUILD + body)
    assert str(caught.value).startswith(f"--model {net}:build: {message}") and "\n" not in str(caught.value)


FORWARD = """from torch import nn
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
    def forward(self, x):
        x = self.layer(x)
        {}
def build(spec):
    return [Own()], nn.Sequential(nn.Flatten(), nn.Linear(256, 5))
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return x.detach()", "block_00 gives an output that no gradient can come back from; leave detach() out"),
        ("return (x, x)", "block_00 gives a tuple for a batch of 2 images, but a block hands on a map"),
        ("return x[:1]", "block_00 gives (1, 4, 8, 8) for a batch of 2 images, but a block hands on a map"),
        ("return x + x.mean().item()", "block_00 on maps of (3, 8, 8): line 8 of net.py: "),
        (
            "return x.view(2, 256).view(2, 4, 8, 8)",
            "block_00 on maps of (3, 8, 8): line 8 of net.py: RuntimeError: view",
        ),
    ],
)
def test_a_forward_pass_that_cannot_be_trained_is_one_line(line: str, message: str, net: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build_own(net, FORWARD.format(line))
    assert str(caught.value).startswith(f"--model {net}:build: {message}")


def test_a_function_that_is_not_there_is_suggested(net: Path) -> None:
    with pytest.raises(UsageError, match=r"^--model .*net.py:bild: the file has no function bild \(did you mean build"):
        build_own(net, function="bild")
    with pytest.raises(UsageError, match=r"net.py:make: the file has no function make; it defines block, build$"):
        build_own(net, function="make")


def test_feedback_alignment_says_which_layer_has_no_feedback_form(net: Path) -> None:
    backbone = build_own(net, NET.replace("nn.BatchNorm2d(after)", "nn.GroupNorm(1, after)"))
    with pytest.raises(UsageError, match="a layer of type GroupNorm has weights but no feedback form"):
        make_method("fa", backbone)
