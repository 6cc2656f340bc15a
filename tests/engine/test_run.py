"""The main job, end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import main

TIMES = {"time_s", "images_per_second"}


def without_times(records: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


@pytest.mark.pictures
@pytest.mark.parametrize("method", ["bp", "dgl"])
def test_a_run_leaves_a_complete_folder(run, method: str) -> None:
    assert run(f"--{method}", "--name", "trial") == 0
    folder, summary = run.last, run.summary()
    assert folder.name.endswith("_trial")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml", "command.txt", "data.json", "environment.json", "metrics.jsonl", "summary.json", "run.log",
        "report.html",
        "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/best.ckpt",
        *(f"plots/{name}.svg" for name in ("loss", "accuracy", "rate", "throughput")),
    } | {f"plots/{name}.svg" for name in ("blocks", "last") if method == "dgl"}  # fmt: skip
    records = run.records()
    assert [record["step"] for record in records if record["kind"] == "step"] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    assert summary["status"] == "done"
    assert summary["final_test_accuracy"] == epochs[-1]["test/accuracy"]
    assert summary["best_test_accuracy"] == max(record["test/accuracy"] for record in epochs)
    local = [value is not None for value in summary["block_test_accuracy"]]
    assert local == [method == "dgl", method == "dgl", True]
    assert (summary["num_head_parameters"] > 0) == (method == "dgl")
    assert [block["receptive_field"] for block in summary["blocks"]] == [4, 10, 22]
    assert [block["output"] for block in summary["blocks"]] == [[8, 16, 16], [16, 8, 8], [32, 4, 4]]
    for key in ("wall_s", "train_s", "images_per_second", "peak_memory_bytes", "num_parameters"):
        assert summary[key] > 0
    assert (summary["method"], summary["model"], summary["dataset"], summary["seed"]) == (method, "VGGs", "digits", 0)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert (folder / "command.txt").read_text().startswith("main.py --dataset digits ")
    log = (folder / "run.log").read_text()
    assert "Epoch 3/3" in log
    assert "Best test accuracy" in log


@pytest.mark.pictures
def test_a_run_with_decoders_leaves_pictures_and_both_losses(run) -> None:
    assert run("--dgl", "--ssl", "--upsample") == 0
    assert sorted(path.name for path in run.last.glob("plots/*.png")) == [
        "reconstructions_block_00.png", "reconstructions_block_01.png",
    ]  # fmt: skip
    page = (run.last / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 2
    for record in run.records():
        for block in ("block_00", "block_01"):
            pred, ssl, total = (record[f"train/{block}/{part}"] for part in ("pred_loss", "ssl_loss", "loss"))
            assert total == pytest.approx(0.9 * pred + 0.1 * ssl)


def test_the_last_block_alone_without_the_frozen_ones(run) -> None:
    assert run("--first_trainable_block", "-1", "--skip_frozen_blocks") == 0
    weights = run.state()["method"]
    assert not [name for name in weights if ".blocks.0." in name or ".blocks.1." in name]
    assert weights["backbone.blocks.2.features.0.weight"].shape[1] == 1  # the grey image itself
    assert main.main(["evaluate", str(run.last), "--device", "cpu"]) == 0


def test_epoch_metrics_are_the_means_of_its_steps(run) -> None:
    run("--dgl", "--log_interval", "1")
    records = [record for record in run.records() if record["epoch"] == 1]
    *steps, epoch = records
    for name in ("train/loss", "train/accuracy", "train/block_00/loss"):
        assert epoch[name] == pytest.approx(sum(step[name] for step in steps) / len(steps))


def test_config_is_taken_back_and_gives_the_same_bits(run, same) -> None:
    run("--dgl", "--dropout_prob", "0.3")
    first, config = run.state(), run.last / "config.yaml"
    assert yaml.safe_load(config.read_text())["run"]["device"] == "cpu"
    assert main.main(["--config", str(config)]) == 0
    assert len(run.folders) == 2
    same(first, run.state())


def test_bits_depend_on_the_seed_and_not_on_how_the_run_is_watched(run, same) -> None:
    run("--dgl", "--dropout_prob", "0.3")
    first, records = run.state(), [record for record in without_times(run.records()) if record["kind"] == "epoch"]
    run("--dgl", "--dropout_prob", "0.3", "--log_interval", "3", "--wandb", "offline", "--no_progress_bar")
    same(first["method"], run.state()["method"])
    again = [record for record in without_times(run.records()) if record["kind"] == "epoch"]
    for one, other in zip(records, again, strict=True):
        assert one == pytest.approx(other)
    run("--dgl", "--dropout_prob", "0.3", "--seed", "1")
    key = "backbone.blocks.0.features.0.weight"
    assert not torch.equal(first["method"][key], run.state()["method"][key])


def test_bp_and_dgl_start_from_the_same_network(run, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("--bp", "--dgl"):
        run(method, "--learning_rate", "1e-30", "--weight_decay", "0")
    one, other = (run.state(folder)["method"] for folder in run.folders)
    for name in one:
        if "running" not in name:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-25, msg=name)


def inspect(folder: Path, *words: str) -> str:
    """A run's wandb files, as wandb itself reads them."""
    [offline] = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *words, str(offline)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_wandb_offline_holds_the_run(run) -> None:
    assert run("--dgl", "--wandb", "offline") == 0
    lines = [json.loads(line) for line in inspect(run.last).splitlines()]
    history = [set(line["history"]["item"]) for line in lines if line["type"] == "history"]
    assert len(history) == len(run.records())
    panels = {name for names in history for name in names if not name.startswith("_")}
    hidden = {line["metric"]["name"] for line in lines if line.get("metric", {}).get("options", {}).get("hidden")}
    assert hidden == {"step", "epoch", "time_s"}
    assert "test/block_01/accuracy" in panels and not [name for name in panels if "block_02" in name]
    said = "".join(line["output_logger"]["line"] for line in lines if line["type"] == "output_logger")
    assert "Training VGGs with dgl" in said and "Epoch 3/3" in said and "Best test accuracy" in said
    assert lines[-1]["type"] == "exit"


def test_wandb_has_the_summary_of_the_run_and_its_own_settings_only(run) -> None:
    assert run("--wandb", "offline", "--wandb_project", "mine", "--wandb_group", "ours") == 0
    told, summary = json.loads(inspect(run.last, "--summary")), run.summary()
    for key in (
        "status", "best_test_accuracy", "best_epoch", "final_test_accuracy", "num_parameters", "peak_memory_bytes",
        "images_per_second",
    ):  # fmt: skip
        assert told["summary"][key] == summary[key], key
    assert told["project"] == "mine"
    config = told["config"]
    assert (config["method"], config["epochs"], config["learning_rate"]) == ("bp", 3, 0.02)
    assert not {"pred_aux_type", "curriculum_start", "lr_gamma"} & set(config)


def test_wandb_has_the_reconstructions(run) -> None:
    assert run("--dgl", "--ssl", "--wandb", "offline") == 0
    names = {path.name.rpartition("_block_")[2][:2] for path in run.last.rglob("wandb/**/media/images/recon*.png")}
    assert names == {"00", "01"}


def test_wandb_that_breaks_does_not_stop_the_run(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from engine.run.wandb_log import WandbLog

    start = WandbLog._start

    def broken(self, *words) -> None:
        start(self, *words)
        self._run.log = lambda values: (_ for _ in ()).throw(ConnectionResetError("service is gone"))

    monkeypatch.setattr(WandbLog, "_start", broken)
    assert run("--wandb", "offline") == 0
    assert capsys.readouterr().out.count("wandb failed (service is gone)") == 1
    assert run.summary()["status"] == "done"


def test_wandb_that_cannot_start_does_not_stop_the_run(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("wandb.init", lambda **words: (_ for _ in ()).throw(RuntimeError("no network\nat all")))
    assert run("--wandb", "online") == 0
    assert "wandb cannot be reached (no network): logging offline" in capsys.readouterr().out


def test_without_a_login_auto_is_offline_and_says_so(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("wandb.login", lambda **words: False)
    assert run("--wandb", "auto", "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert "not logged in to wandb: logging offline" in out
    assert "wandb sync" in out


def test_a_validation_split_chooses_the_epoch(run) -> None:
    assert run("--val_size", "100") == 0
    epochs = [record for record in run.records() if record["kind"] == "epoch"]
    best = max(epochs, key=lambda record: record["val/accuracy"])
    summary = run.summary()
    assert summary["chosen_on"] == "val"
    assert (summary["best_epoch"], summary["best_test_accuracy"]) == (best["epoch"], best["test/accuracy"])


def test_evaluate_gives_what_the_run_gave(run, capsys) -> None:
    run("--dgl")
    capsys.readouterr()
    assert main.main(["evaluate", str(run.last), "--weights", "last", "--device", "cpu"]) == 0
    lines, summary = capsys.readouterr().out.splitlines(), run.summary()
    shown = [re.split(r"  +", line) for line in lines if "test accuracy" in line]
    assert [words[0] for words in shown] == ["block_00", "block_01", "network, block_02"]  # each once
    accuracies = [float(re.search(r"accuracy +([\d.]+) %", line)[1]) for line in lines]
    assert accuracies == pytest.approx(summary["block_test_accuracy"], abs=0.005)
    assert accuracies[-1] == pytest.approx(summary["final_test_accuracy"], abs=0.005)


def test_early_exits_are_calibrated_on_held_out_images(run, capsys) -> None:
    run("--dgl", "--val_size", "100")
    capsys.readouterr()
    assert main.main(["evaluate", str(run.last), "--weights", "last", "--device", "cpu", "--early_exit"]) == 0
    out = capsys.readouterr().out
    assert "calibrated on 100 images of the val split, measured on test" in out
    assert (run.last / "plots" / "early_exit.svg").exists()
    rows = [line.split(",") for line in (run.last / "early_exit.csv").read_text().splitlines()]
    assert rows[0] == [
        "threshold",
        "test_accuracy",
        "multiply_adds",
        "share_block_00",
        "share_block_01",
        "share_block_02",
    ]
    accuracies = run.summary()["block_test_accuracy"]
    assert float(rows[1][1]) == pytest.approx(accuracies[0])  # threshold 0: all leave at the first exit
    assert float(rows[-1][1]) == pytest.approx(accuracies[2])  # above 1: none leaves early
    assert [float(row[2]) for row in rows[1:]] == sorted(float(row[2]) for row in rows[1:])
    rows = [line.split(",") for line in (run.last / "exits.csv").read_text().splitlines()]
    assert [row[0] for row in rows[1:]] == ["block_00", "block_01", "block_02"]
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(accuracies)
    assert rows[1][2] == rows[1][4]  # an ensemble of one
    assert f"weighted by 2^i: accuracy {float(rows[3][4]):.2f}" in out


def test_early_exits_need_exits(run, capsys) -> None:
    run("--bp", "--epochs", "1")
    assert main.main(["evaluate", str(run.last), "--device", "cpu", "--early_exit"]) == 2
    assert "--early_exit: this run has one exit only" in capsys.readouterr().err


def test_report_compares_two_runs(run, capsys) -> None:
    run("--dgl", "--name", "local")
    run("--bp", "--name", "whole")
    capsys.readouterr()
    assert main.main(["report", str(run.path), "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert "local" in out and "whole" in out
    assert Path("out/report.html").exists()


def test_a_loss_that_is_not_finite_stops_the_run(run, capsys) -> None:
    assert run("--dgl", "--learning_rate", "1e30", "--lr_schedule", "constant") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "the loss of block_0" in line
    assert "is not finite at step" in line
    assert run.summary()["status"] == "failed"


def test_an_energy_that_rises_while_it_is_relaxed_stops_the_run(run, capsys) -> None:
    assert run("--pc", "--inference", "state", "--inference_rate", "1") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "the energy of block_0" in line and "rises while it is relaxed" in line
    assert "at step" in line and "lower --inference_rate" in line
    assert run.summary()["status"] == "failed"


def test_frozen_blocks_stay_as_they_were(run) -> None:
    run("--dgl", "--first_trainable_block", "-1")
    run("--dgl", "--first_trainable_block", "-1", "--epochs", "1")
    one, other = (run.state(folder)["method"] for folder in run.folders)
    frozen = [name for name in one if name.startswith(("backbone.blocks.0", "backbone.blocks.1"))]
    assert frozen
    assert all(torch.equal(one[name], other[name]) for name in frozen)
    assert not torch.equal(one["backbone.blocks.2.features.0.weight"], other["backbone.blocks.2.features.0.weight"])


@pytest.mark.parametrize(
    "words",
    [
        "--optimizer_type Adam --learning_rate 0.001",
        "--optimizer_type AdamW --learning_rate 0.001 --gradient_clip 0.1",
        "--optimizer_type SignSGD --learning_rate 0.0001 --no_nesterov",
        "--optimizer_type Rprop --learning_rate 0.0001",
        "--precision bf16",
        "--precision auto",
        "--deterministic --label_smoothing 0.1",
        "--random_crop --random_erasing --random_horizontal_flip --normalization unit_gaussian",
        "--random_resized_crop --normalization none --padding_mode circular",
        "--lr_schedule multistep --warmup_epochs 1",
        "--method dgl --pred_aux_type mlp_sr",
        "--method dgl --is_direct_global --last_gradient_weight 0.3",
        "--method dgl --ssl --ssl_task inpaint --simclr_loss_weight 0.5 --cpc_loss_weight 0.5 --precision auto",
        "--method predsim --simclr_loss_weight 0.5 --overlap 1 --random_crop",
    ],
)
def test_settings_reach_the_end(run, words: str) -> None:
    assert run(*words.split(), "--epochs", "2") == 0
    torch.use_deterministic_algorithms(False)
    assert run.summary()["final_test_accuracy"] > 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ssl --ssl_task colourise", "--ssl_task colourise needs colours, and the images of digits are grey"),
        ("--cpc_loss_weight 1 --first_trainable_block 6", "--cpc_loss_weight needs maps of 3 rows or more"),
        (
            "--ssl --pred_loss_weight 0 --ssl_loss_weight 0 --cpc_loss_weight 1",
            "block_06 would learn nothing: its map of 2x2 is too small for",
        ),
    ],
)
def test_a_task_that_the_images_rule_out_is_one_line(run, capsys, words: str, message: str) -> None:
    assert run("--dgl", *words.split(), model="VGG11") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert run.folders == []


def test_compile_compiles_every_block_and_head_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    assert run("--dgl", "--compile", "--epochs", "1") == 0
    assert len(compiled) == len(set(map(id, compiled))) == 3 + 3  # three blocks, two heads and the classifier


def test_compile_without_a_compiler_is_one_line(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: 1 / 0)
    assert run("--dgl", "--compile") == 2
    assert "--compile needs a C++ compiler" in capsys.readouterr().err
    assert run.folders == []


def test_a_gpu_that_is_not_there_is_a_usage_error(run, capsys) -> None:
    number = torch.cuda.device_count() + 3
    assert run("--device", f"cuda:{number}") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"--device cuda:{number}: this machine has" in line
    assert run.folders == []


def test_missing_data_is_one_line_with_three_ways_on(run, capsys) -> None:
    code = main.main(["--dataset", "cifar10", "--data_dir", "nowhere", "--path", str(run.path)])
    assert code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "nowhere" in line
    for way in ("--dataset digits", "--download", "--dataset folder"):
        assert way in line
    assert run.folders == []


def test_a_batch_larger_than_the_data_is_refused(run, capsys) -> None:
    assert run("--batch_size", "500") == 2
    assert "--batch_size" in capsys.readouterr().err
    assert run.folders == []


def test_a_folder_that_cannot_be_made_is_one_line(run, capsys) -> None:
    Path("file").write_text("")
    assert run("--path", "file/runs") == 1
    assert capsys.readouterr().err.startswith("main.py: error: --path file/runs: cannot make a run folder there")


def test_two_runs_in_one_second_have_two_folders(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "2000-01-01_00-00-00")
    run("--epochs", "1")
    run("--epochs", "1")
    assert [folder.name for folder in run.folders] == ["2000-01-01_00-00-00", "2000-01-01_00-00-00_2"]
