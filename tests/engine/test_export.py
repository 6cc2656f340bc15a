"""The verb ``export``: another process, which does not know this project, gets the logits of ``evaluate``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cli
import main
from engine.trained import load_trained
from tests.networks.conftest import net

__all__ = ["net"]

# On images in the memory order of the project, in another one, and one at a time.
USER = """
import importlib.util, torch
assert not any(importlib.util.find_spec(name) for name in ("model", "engine", "methods"))
{line}
given = torch.load("given.pt")
found = {{"logits": network(given["x"]), "contiguous": network(given["x"].contiguous()),
          "one": network(given["x"][:1]), "weights": weights}}
torch.save(found, "found.pt")
"""


def export(run, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict, dict]:
    """What the command says, what the loaded program gives in another process, and what it must be."""
    capsys.readouterr()
    assert main.main(["export", str(run.last), str(out / "net.pt2")]) == 0
    said = capsys.readouterr().out
    trained = load_trained(run.last, cli.args_of_run(run.last), "best", torch.device("cpu"))
    x_BCHW = trained.feed(trained.splits.test).batch(0, 0).x_BCHW
    with torch.no_grad():
        logits_BN = trained.method.eval().block_logits(x_BCHW)[-1]
    torch.save({"x": x_BCHW}, out / "given.pt")
    [line] = re.findall(r'^python -c "(.*)"$', said, re.MULTILINE)
    code = f"torch.set_num_threads({torch.get_num_threads()})\n{USER.format(line=line)}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import torch\n{code}"], cwd=out, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return said, torch.load(out / "found.pt"), {"logits": logits_BN, "weights": trained.method.backbone.state_dict()}


@pytest.mark.parametrize(
    ("rule", "model"), [("--dgl", "net"), ("--fa", "VGGs"), ("--bp", "ResNet20"), ("--predsim", "torchvision:resnet18")]
)
def test_the_program_and_the_weights_are_those_of_the_run(
    run, net: Path, rule: str, model: str, tmp_path: Path, capsys
) -> None:
    words = [rule, "--epochs", "1", "--train_size", "64"]
    assert run(*words, model=f"{net}:build" if model == "net" else model) == 0
    said, found, wanted = export(run, tmp_path, capsys)
    assert "(B, 1, 32, 32)" in said and "(B, 10)" in said and "the same bits as the network" in said
    assert torch.equal(found["logits"], wanted["logits"])
    assert torch.allclose(found["contiguous"], wanted["logits"], atol=1e-5)
    assert torch.allclose(found["one"], wanted["logits"][:1], atol=1e-5)
    assert found["weights"].keys() == wanted["weights"].keys()
    assert all(torch.equal(value, wanted["weights"][name]) for name, value in found["weights"].items())


def test_no_image_gets_into_the_program(run, tmp_path: Path) -> None:
    assert run("--bp", "--epochs", "1", "--train_size", "64") == 0
    assert main.main(["export", str(run.last), str(tmp_path / "net.pt2")]) == 0
    [examples], _ = torch.export.load(tmp_path / "net.pt2").example_inputs
    assert not examples.any() and examples.untyped_storage().nbytes() == examples.nbytes


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none", "a.pt2"], 2, "none: no run folder there"),
        (["RUN", "a.onnx"], 2, "a.onnx: the name must end in .pt2; the weights are written beside it, to a.pt"),
        (["RUN", "none/a.pt2"], 2, "none/a.pt2: there is no folder none; the weights are written beside it"),
        (["RUN", "a.pt2", "--model", "x.py:y"], 2, "was trained with VGGs; leave it out"),
        (["RUN", "a.pt2", "--data_dir", "x"], 2, "was trained on digits, which comes with the code; leave it out"),
        (["RUN", "folder.pt2"], 1, "cannot write folder.pt2: Is a directory"),
        (["RUN", "a.pt2", "--weights", "last"], 1, "there is no checkpoint"),
    ],
)
def test_what_cannot_be_exported_is_one_line(run, words: list[str], code: int, message: str, capsys) -> None:
    assert run("--bp", "--epochs", "1", "--train_size", "64") == 0
    (run.last / "checkpoints" / "last.ckpt").unlink()
    Path("folder.pt2").mkdir()
    capsys.readouterr()
    assert main.main(["export", *(str(run.last) if word == "RUN" else word for word in words)]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(Path().glob("*.pt"))


def test_a_network_that_torch_cannot_trace_is_one_line(run, net: Path, capsys) -> None:
    forward = "def forward(self, x):\n        return x * (2 if float(x.detach().sum()) > 0 else 3)\n"
    own = f"class Counting(nn.Module):\n    {forward}"
    text = net.read_text().replace("    side =", "    blocks[2].append(Counting())\n    side =") + "\n\n" + own
    net.write_text(text.replace("float(", "x.device.type == 'meta' or float("))
    assert run("--bp", "--epochs", "1", "--train_size", "64", model=f"{net}:build") == 0
    capsys.readouterr()
    assert main.main(["export", str(run.last), "a.pt2"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{run.last}: torch.export cannot trace its network: " in line
    assert not Path("a.pt2").exists() and json.loads((run.last / "summary.json").read_text())["status"] == "done"
