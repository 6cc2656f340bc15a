"""What comes from outside stays outside: names cannot climb, pages show text as text, secrets are written nowhere."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

import cli
from engine.run import checkpoint
from engine.run.folder import RunFolder
from tests.datamodules.conftest import pixels, write
from tests.faults import inject
from tests.faults.conftest import last_state, only_run
from tests.faults.fake_wandb import FakeWandb
from tests.faults.process import SMALL, finish
from tests.faults.test_wandb import environment
from utils import UsageError, UserError

SECRETS = {
    "WANDB_API_KEY": "5ec2e7" * 7,
    "AWS_SECRET_ACCESS_KEY": "canary-aws-4711",
    "HF_TOKEN": "canary-hf-4712",
    "MY_PASSWORD": "canary-password-4713",
}


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_no_secret_of_the_environment_is_written_or_sent(mode: str, tmp_path: Path) -> None:
    with FakeWandb() as fake:
        env = environment(tmp_path, fake) | SECRETS
        run = finish([*SMALL, "--dgl", "--wandb", mode], tmp_path, env=env)
        assert run.exit_code() == 0
        assert bool(fake.bodies) == (mode == "online")
        sent = "".join(fake.bodies)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".wandb" for path in files)
    for secret in SECRETS.values():
        assert secret not in sent
        assert [path for path, content in files.items() if secret.encode() in content] == []


@pytest.mark.faults
def test_no_secret_is_said_when_the_key_is_refused(tmp_path: Path) -> None:
    with FakeWandb("refuse") as fake:
        env = environment(tmp_path, fake) | SECRETS
        run = finish([*SMALL, "--dgl", "--wandb", "online"], tmp_path, env=env)
    assert run.exit_code() == 0
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS.values()), path


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..\\x", "x\n", "x\x00", "~root", "$HOME", "é", "x" * 101])
def test_a_name_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        cli.parse(["--name", name])


@pytest.mark.parametrize("name", ["..", ".", "-", "x.y", ""])
def test_odd_names_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    assert cli.parse([f"--name={name}"]).args.run.name == name
    folder = RunFolder.create(tmp_path / "runs", name)
    assert folder.path.resolve().parent == (tmp_path / "runs").resolve()


def test_a_run_is_made_anew_even_where_a_link_lies_in_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "2000-01-01_00-00-00")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "2000-01-01_00-00-00").symlink_to(tmp_path / "elsewhere")
    assert RunFolder.create(tmp_path / "runs", "").path.name == "2000-01-01_00-00-00_2"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_class_names_are_text_on_the_page_and_in_the_terminal(tmp_path: Path) -> None:
    for name in ("<script>alert(1)<", "\x1b[31mred"):
        for split in ("train", "test"):
            for number in range(4):
                write(tmp_path / "tree" / split / name / f"{number}.png", pixels(number, (32, 32, 3)))
    words = ["--dataset", "folder", "--data_dir", "tree", "--epochs", "1", "--batch_size", "4", "--model", "VGGs"]
    run = finish([*words, "--wandb", "disabled", "--device", "cpu", "--precision", "fp32"], tmp_path, inject.pictures)
    assert (run.exit_code(), run.errors()) == (0, [])
    page = (only_run(tmp_path) / "report.html").read_text()
    assert "<script>alert" not in page
    (tmp_path / "tree" / "test" / "\x1b[31mred" / "0.png").write_bytes(b"no image")
    again = finish([*words, "--wandb", "disabled"], tmp_path)
    [line] = again.errors()
    assert again.exit_code() == 1 and line.isprintable() and "cannot read image" in line


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "epochs: 5",
        "epochs: !!python/object/apply:os.system [x]",
        "epochs: 0",
        "model: []",
        "a: [",
        "method: nothing",
    ],
)
def test_settings_of_a_strange_run_are_one_line(verb: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        cli.parse(["--resume", str(tmp_path)]) if verb == "resume" else cli.args_of_run(tmp_path)
    assert str(caught.value)


def test_a_folder_in_a_file_cannot_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"resume: {tmp_path}\n")
    with pytest.raises(UsageError, match="only auto can stand in a file"):
        cli.parse(["--config", str(tmp_path / "c.yaml")])


def test_a_checkpoint_of_another_run_is_one_line(tmp_path: Path, whole) -> None:
    finish([*SMALL, "--dgl"], tmp_path, partial(inject.signal_after_step, 7, signal.SIGTERM))
    path = only_run(tmp_path)
    shutil.copy(whole("--bp") / "checkpoints" / "last.ckpt", path / "checkpoints" / "last.ckpt")
    run = finish(["--resume", str(path)], tmp_path)
    [line] = run.errors()
    assert (run.exit_code(), "the checkpoint does not belong to this run" in line) == (1, True)


@pytest.mark.parametrize("lost", ["args", "method", "optimizer", "step", "best", "interval"])
def test_a_checkpoint_that_lacks_something_is_one_line(lost: str, tmp_path: Path) -> None:
    finish([*SMALL, "--dgl"], tmp_path, partial(inject.signal_after_step, 7, signal.SIGTERM))
    path = only_run(tmp_path)
    state = last_state(path)
    del state[lost]
    torch.save(state, path / "checkpoints" / "last.ckpt")
    run = finish(["--resume", str(path)], tmp_path)
    [line] = run.errors()
    assert (run.exit_code(), "the checkpoint does not belong to this run" in line) == (1, True)


def test_the_environment_file_has_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.run.provenance import environment as describe

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = json.dumps(describe(torch.device("cpu"), 0))
    assert not any(value in text for value in SECRETS.values())


def test_checkpoints_hold_settings_only_as_plain_values(tmp_path: Path, whole) -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, (str, int)) and plain(part) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool, torch.Tensor)

    assert plain(last_state(whole("--dgl")))
    with pytest.raises(UserError):
        checkpoint.load(tmp_path / "none")
