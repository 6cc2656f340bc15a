"""Runs of networks from a file and from libraries: resumed, evaluated, side by side, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import cli
import main
from engine.loop.tape import Tape
from engine.run.wandb_log import default_group, tags
from sections.files import sha256
from tests.engine.conftest import SMALL, run, same
from tests.engine.test_processes import PROCESSES, grid
from tests.engine.test_run import without_times
from tests.engine.test_threads import after
from tests.networks.conftest import NET

__all__ = ["grid", "run", "same"]

QUICK = ["--epochs", "1"]


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]):
    """Runs a command that must be refused with exit code 2, and gives its one line."""

    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main.main(list(words)) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    return refused


def test_a_run_knows_its_network_and_keeps_the_code(run, net: Path) -> None:
    assert run("--dgl", *QUICK, model=f"{net}:build") == 0
    summary = run.summary()
    assert (summary["status"], summary["model"]) == ("done", "net:build")
    assert [block["output"] for block in summary["blocks"]] == [[4, 16, 16], [6, 8, 8], [5, 4, 4]]
    assert [block["receptive_field"] for block in summary["blocks"]] == [4, 10, 22]
    assert (run.last / "code" / "model" / "net.py").read_bytes() == net.read_bytes()
    settings = yaml.safe_load((run.last / "config.yaml").read_text())["model"]
    assert settings["model_sha256"] == sha256(net.read_bytes())


def test_the_dashboard_gets_no_longer_words_than_it_takes(net: Path) -> None:
    long = net.rename(net.with_name(130 * "n" + ".py"))
    args = cli.parse(["--dgl", "--model", f"{long}:build"]).args
    assert tags(args)[1] == 64 * "n" and len(default_group(args)) <= 128
    assert default_group(args).startswith("dgl nnn")


def test_resuming_goes_on_with_the_code_of_the_run(run, same, net: Path, error, monkeypatch, capsys) -> None:
    assert run("--dgl", model=f"{net}:build") == 0
    whole = run.state()
    with monkeypatch.context() as patch:
        after(6, patch)
        assert run("--dgl", model=f"{net}:build") == 143
    folder = run.last
    net.write_text(NET.replace("block(4, 6)", "block(4, 7)"))
    assert "not the code that the run was trained with" in error("--resume", str(folder), "--model", f"{net}:build")
    copy = folder / "code/model/net.py"
    line = error("--resume", str(folder), "--model", f"{copy}:block")
    assert f"--model {copy}:block: the run was trained with net:build; give --model {copy}:build" in line
    assert run.resume(str(folder), "--model", f"{copy}:build") == 0
    assert f"net.py has changed since {folder} was started" in capsys.readouterr().out
    same(whole, run.state(folder))


def test_resume_auto_takes_no_other_function_of_the_file_for_it(run, net: Path, monkeypatch) -> None:
    net.write_text(NET + "\n\nother = build\n")
    with monkeypatch.context() as patch:
        after(6, patch)
        assert run("--dgl", model=f"{net}:build") == 143
    begun = run.last
    assert run("--dgl", "--resume", "auto", model=f"{net}:other") == 0
    assert run.summary(begun)["status"] == "interrupted"
    assert run("--dgl", "--resume", "auto", model=f"{net}:build") == 0
    assert run.summary(begun)["status"] == "done"
    assert len(run.folders) == 2


def test_a_run_from_elsewhere_is_evaluated_once_its_network_is_named(
    run, net: Path, error, monkeypatch, capsys
) -> None:
    assert run("--dgl", *QUICK, model=f"{net}:build") == 0
    named = f"{run.last}/code/model/net.py:build"
    monkeypatch.setenv("XDG_CACHE_HOME", str(net.parent / "another machine"))
    evaluate = ["evaluate", str(run.last), "--device", "cpu"]
    assert error(*evaluate).endswith(f"name it once: evaluate {run.last} --model {named}")
    assert "the run was trained with net:build; give --model " in error(*evaluate, "--model", named.partition(":")[0])
    with pytest.raises(SystemExit, match="2"):
        main.main([*evaluate, "--model", "VGGs"])
    assert main.main([*evaluate, "--model", named, "--early_exit"]) == 0
    assert "network, block_02  test accuracy" in capsys.readouterr().out
    assert main.main(evaluate) == 0
    assert run("--dgl", *QUICK) == 0
    assert "was trained with VGGs; leave it out" in error("evaluate", str(run.last), "--model", named)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model none.py:build", "--model none.py:build: cannot read "),
        ("--model {net}", "allowed is one of BasicCNN, "),
        ("--model VGG8", "torchvision:NAME, timm:NAME or FILE.py:FUNCTION (did you mean VGG8c?)"),
        ("--model {net}:bild", "has no function bild (did you mean build?)"),
        ("--model {net}:build --dropout_prob 0.5", "--dropout_prob has no effect: it needs a network of the project"),
        ("--model {net}:build --mlp_hidden_dim 5", "--mlp_hidden_dim has no effect: it needs a network of the project"),
        ("--model {net}:build --padding_mode circular", "--padding_mode has no effect: it needs a network of the"),
        ("--model {net}:build --stem cifar", "--stem has no effect: it needs --model torchvision:NAME or timm:NAME"),
        ("--model {net}:build --dgl --pred_aux_type auglocal", "--pred_aux_type auglocal needs a network of the"),
        ("--model {net}:build --predsim --local_classifier", "--local_classifier needs a network of the project"),
        ("--model {net}:build --first_trainable_block 1 --skip_frozen_blocks", "--skip_frozen_blocks has no effect"),
        ("--model {net}:build --dgl --num_modules 4", "--num_modules 4: net:build has 3 blocks, so it can be at"),
        ("--model {net}:build --dgl --module_ends 0,3", "--module_ends 0,3: net:build has 3 blocks, so they must"),
        ("--model {net}:build --first_trainable_block 3", "net:build has 3 blocks, so it must lie in -3 to 2"),
        ("--model {net}:build --dgl --overlap 3", "--overlap 3: there are 3 modules, so it can be at most 2"),
        ("--model {net}:build --dgl --sequential --epochs 4", "so it must be a multiple of 3, as 3 or 6"),
        ("--model {net}:build --dgl --first_trainable_block 2 --ssl", "--ssl has no effect: it needs more than one"),
        ("--model torchvision:resnet19", "torchvision has no such network (did you mean resnet18?)"),
        ("--model torchvision:vgg11 --stem cifar", "--stem cifar has no effect"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(run, net: Path, error, words: str, message: str) -> None:
    given = words.replace("{net}", str(net)).split()
    assert message in error("--dataset", "digits", "--device", "cpu", "--path", str(run.path), *given)
    assert run.folders == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stages_in_threads_and_processes_give_the_same_bits(run, grid, same, net: Path, precision: str) -> None:
    words = ["--dgl", *QUICK, "--precision", precision]
    assert run(*words, model=f"{net}:build") == 0
    whole, records = run.state(), without_times(run.records())
    assert run(*words, "--layer_parallel", "threads", model=f"{net}:build") == 0
    same(whole, run.state())
    assert without_times(run.records()) == records
    assert grid(*words, *PROCESSES, "--model", f"{net}:build").wait() == [0, 0]
    same(whole, run.state())
    assert without_times(run.records()) == records


def test_layers_that_draw_in_their_own_way_do_not_train_side_by_side(run, net: Path, error) -> None:
    net.write_text(NET.replace("nn.Dropout(prob)", "nn.Dropout2d(prob)"))
    words = [*SMALL, "--dgl", *QUICK, "--path", str(run.path), "--model", f"{net}:build"]
    assert "--layer_parallel: block_00 draws random numbers" in error(*words, "--layer_parallel", "threads")
    assert run("--dgl", *QUICK, model=f"{net}:build") == 0


@pytest.mark.parametrize(
    ("layer", "how"), [("nn.Dropout", "one CUDA graph each"), ("nn.Dropout2d", "eager, since a step")]
)
def test_recorded_steps_keep_its_bits(run, same, net: Path, monkeypatch, capsys, layer: str, how: str) -> None:
    net.write_text(NET.replace("nn.Dropout(prob)", f"{layer}(prob)"))
    assert run("--dgl", *QUICK, model=f"{net}:build") == 0
    whole = run.state()
    capsys.readouterr()
    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, device: (Tape, ""))
    assert run("--dgl", *QUICK, model=f"{net}:build") == 0
    assert f"Steps: {how}" in "".join(capsys.readouterr())
    same(whole, run.state())


def test_modules_and_diagnostics_know_it(run, net: Path) -> None:
    words = ["--num_modules", "2", "--split", "flops", "--diagnostics", "alignment,probes,filters,cka,confusion"]
    assert run("--dgl", *QUICK, *words, model=f"{net}:build") == 0
    assert "inside/block_00/alignment" in run.records()[-1]


def test_a_residual_network_of_torchvision_trains_and_is_evaluated(run, capsys) -> None:
    words = ["--train_size", "64", "--batch_size", "16", *QUICK]
    assert run("--dgl", *words, model="torchvision:resnet18") == 0
    summary = run.summary()
    assert len(summary["block_test_accuracy"]) == 9 and summary["model"] == "torchvision:resnet18"
    assert summary["blocks"][-1]["receptive_field"] == 435
    assert main.main(["evaluate", str(run.last)]) == 0
    assert "network, block_08  test accuracy" in capsys.readouterr().out
    assert torch.isfinite(run.state()["method"]["backbone.classifier.2.weight"]).all()
    assert summary["num_parameters"] > 11e6
