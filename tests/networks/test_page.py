"""The page about networks of one's own: its example trains with its commands, and its commands parse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cli
import main
from networks import build_backbone
from tests.conftest import make_spec
from tests.engine.conftest import run

__all__ = ["run"]

PAGE = (Path(__file__).parents[2] / "docs" / "own_network.md").read_text()
[EXAMPLE] = re.findall(r"```python\n# my/net\.py\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line.split() for line in re.findall(r"^    python main\.py (.*)$", PAGE, re.MULTILINE)]


def test_the_example_has_ten_lines_at_most() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("words", [words for words in COMMANDS if "my/net.py:build" in words], ids=" ".join)
@pytest.mark.usefixtures("net")  # what is named here is not remembered
def test_its_network_trains_with_the_commands_of_the_page(run, words: list[str]) -> None:
    Path("my").mkdir()  # the fixture has changed to an empty folder
    Path("my/net.py").write_text(EXAMPLE)
    quick = ["--train_size", "480", "--wandb", "disabled", "--device", "cpu", "--precision", "fp32"]
    assert main.main([*words, *quick, "--path", str(run.path)]) == 0
    assert run.summary()["final_test_accuracy"] > 20  # chance is 10


def test_the_numbers_of_blocks_that_it_names() -> None:
    found = re.findall(r"(ResNet-18|VGG-11|MobileNet-V2|ConvNeXt-Tiny)\s+(?:has )?(\d+)", PAGE)
    names = {
        "ResNet-18": "resnet18",
        "VGG-11": "vgg11",
        "MobileNet-V2": "mobilenet_v2",
        "ConvNeXt-Tiny": "convnext_tiny",
    }
    assert len(found) == 4
    for name, count in found:
        network = build_backbone(cli.parse(["--model", f"torchvision:{names[name]}"]).args.model, make_spec(32))
        assert network.num_blocks == int(count), name
