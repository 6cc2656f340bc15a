"""The same metrics for TensorBoard: with a stand-in for the writer, and read back where the package is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from PIL import Image

from engine.run.dashboard import without_repeats
from engine.run.tensorboard_log import REQUIREMENT, TensorBoardLog, check_tensorboard
from utils import UsageError

INSTALLED = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The class of the writers, in place of torch's."""
    writer = MagicMock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    return writer


def test_every_metric_is_written_at_its_step(made: MagicMock, tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0, pytest.fail)
    log.log("step", {"step": 7, "epoch": 1, "time_s": 0.5, "train/loss": 1.5, "learning_rate": 0.1})
    log.finish()
    made.assert_called_once_with(str(tmp_path / "tensorboard"), purge_step=None)
    calls = [call.args for call in made.return_value.add_scalar.call_args_list]
    assert calls == [("train/loss", 1.5, 7), ("learning_rate", 0.1, 7)]
    made.return_value.close.assert_called_once_with()


def test_a_resumed_run_hides_what_a_killed_one_wrote_beyond_its_step(made: MagicMock, tmp_path: Path) -> None:
    TensorBoardLog(tmp_path, 12, pytest.fail)
    assert made.call_args.kwargs["purge_step"] == 13


def test_pictures_are_shown(made: MagicMock, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    TensorBoardLog(tmp_path, 0, pytest.fail).show({"filters": tmp_path / "a.png"}, {"step": 5, "epoch": 1})
    name, pixels, step = made.return_value.add_image.call_args.args
    assert (name, pixels.shape, step) == ("filters", (3, 4, 3), 5)


def test_a_failure_ends_the_mirroring_and_is_said_once(made: MagicMock, tmp_path: Path) -> None:
    warnings: list[str] = []
    made.return_value.add_scalar.side_effect = OSError("no space")
    log = TensorBoardLog(tmp_path, 0, warnings.append)
    for step in range(3):
        log.log("step", {"step": step, "train/loss": 1.0})
    log.finish()
    assert warnings == ["tensorboard failed (no space): going on without it; metrics.jsonl has everything"]


def test_without_the_package_the_flag_is_refused_before_anything_is_written(
    run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "tensorboard" else find(name))
    with pytest.raises(UsageError, match="needs TensorBoard: pip install"):
        check_tensorboard()
    assert run("--tensorboard") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert REQUIREMENT in line and run.folders == []


@pytest.mark.skipif(not INSTALLED, reason="tensorboard is not installed (the extra [tensorboard])")
def test_a_run_reads_back_from_its_files(run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("--dgl", "--ssl", "--tensorboard") == 0
    events = EventAccumulator(str(run.last / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    wanted = {
        (name, record["step"], value)
        for record in run.records()
        for name, value in without_repeats(record.pop("kind"), record).items()
        if name not in ("step", "epoch", "time_s")
    }
    read = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert len(read) == len(wanted)
    for name, step, value in wanted:
        assert read[name, step] == pytest.approx(value, rel=1e-6)
    assert len(events.Tags()["images"]) == 2
