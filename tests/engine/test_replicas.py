"""Processes that share every batch train one network, which is that of one process where no loss compares images."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import engine.start
import engine.trainer
import main
from datamodules.feed import Feed
from datamodules.placement import Placement
from engine import memory
from engine.layouts import choose_recorders
from engine.loop.steps import Steps
from engine.parallel.launch import _verdict
from engine.parallel.ranks import Ranks
from methods._base import Method
from schemas import RunArgs
from tests.conftest import make_method
from tests.engine.grid import assert_refused
from tests.engine.test_graph import make_feed, small_args
from tests.engine.test_processes import averaged_by_hand, kill_at, stop_after
from tests.engine.test_processes import grid as grid
from tests.engine.test_run import without_times
from utils import UsageError

TWO = ["--num_replicas", "2"]
HARD = [
    "--learning_rate",
    "0.02",
    "--gradient_clip",
    "1",
    "--random_crop",
    "--random_horizontal_flip",
    "--random_erasing",
]  # 15 steps
# Rules and tasks whose losses are means over images, each of which knows nothing of the others.
MEANS = {
    "bp": ["--bp"],
    "dgl": ["--dgl"],
    "dgl sequential": ["--dgl", "--sequential"],
    "dgl overlap": ["--dgl", "--overlap", "1"],
    "dgl with tasks": [
        *("--dgl", "--rotate_loss_weight", "0.5", "--inpaint_loss_weight", "0.5"),
        *("--batch_size", "36"),  # shares of 18, and four turns
    ],
    "dfa": ["--dfa"],
    "dni": ["--dni"],
    "dni forward": ["--dni", "--unlock", "forward"],
    "critic": ["--critic"],
    "infopro": ["--infopro", "--label_loss", "softmax"],
    "predsim without similarity": ["--predsim", "--sim_loss_weight", "0"],
}
COMPARING = ["--predsim"]
SYNC, NONE = "sync_bn", "without BatchNorm"
WAYS = [(case, SYNC) for case in MEANS] + [(case, NONE) for case in ("bp", "dgl", "dfa")]


def in_double(folder: Path, change: Callable[[Method], object]) -> Callable[[int], None]:
    """Compute in float64 on a network that ``change`` has changed, and leave its state in the file ``<rank>.pt``."""

    def prepare(rank: int) -> None:
        assemble, normalised, fit = engine.start.assemble, Feed._normalised, engine.trainer._fit

        def assemble_in_double(*args, **kwargs):
            method, splits = assemble(*args, **kwargs)
            change(method)
            return method.double(), splits

        def fit_and_keep(module, device):
            summary = fit(module, device)
            torch.save(module.method.state_dict(), folder / f"{rank}.pt")
            return summary

        engine.start.assemble = assemble_in_double
        Feed._normalised = lambda self, pixels_BHWC: normalised(self, pixels_BHWC).double()
        engine.trainer._fit = fit_and_keep

    return prepare


def without_batch_norm(method: Method) -> None:
    for module in [*method.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, _BatchNorm):
                setattr(module, name, nn.Identity())


@pytest.fixture
def states(grid, tmp_path: Path):
    """The state that a command leaves in every one of its processes, in float64."""

    def train(*words: str, count: int, change: Callable[[Method], object] = lambda method: None) -> list[dict]:
        folder = tmp_path / f"states_{count}"
        folder.mkdir(exist_ok=True)
        assert grid(*HARD, *words, count=count, before=in_double(folder, change)).wait() == [0] * count
        return [torch.load(folder / f"{rank}.pt") for rank in range(count)]

    return train


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of two values."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - value).abs().max()) for name, value in expected.items())


@pytest.mark.parametrize("words", [["--bp"], ["--dgl", "--dropout_prob", "0.3"]], ids=" ".join)
def test_one_replica_is_the_run_without_the_flag(run, same, tmp_path: Path, words: list[str]) -> None:
    run(*words)
    whole, records = run.state(), without_times(run.records())
    (tmp_path / "idle.yaml").write_text("sync_bn: true")
    assert run(*words, "--num_replicas", "1", "--config", str(tmp_path / "idle.yaml")) == 0
    same(whole, run.state())
    assert without_times(run.records()) == records


@pytest.mark.parametrize(("case", "way"), WAYS)
def test_replicas_are_one_process_with_the_whole_batch(run, states, case: str, way: str) -> None:
    """Parameters and statistics to 1e-9 in float64; the metrics to what their sums keep."""
    flags, change = (["--sync_bn"], lambda method: None) if way == SYNC else ([], without_batch_norm)
    [whole] = states(*MEANS[case], count=1, change=change)
    records = run.records()
    first, second = states(*MEANS[case], *TWO, *flags, count=2, change=change)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert distance(first, whole) < 1e-9
    for ours, theirs in zip(run.records(), records, strict=True):
        names = [name for name in theirs if name.startswith(("train/", "test/"))]
        assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], rel=1e-9)


def test_three_replicas_of_a_grid_share_statistics_too(run, states) -> None:
    words = ["--dgl", "--batch_size", "36"]
    [whole] = states(*words, count=1)
    grid_of_two_by_three = ["--layer_parallel", "processes", "--num_replicas", "3", "--sync_bn"]
    first, *_ = states(*words, *grid_of_two_by_three, count=6)
    assert distance(first, whole) < 1e-9


def test_a_loss_that_compares_images_and_local_statistics_know_a_share(states) -> None:
    """What the flag's help says; and the replicas stay one network all the same."""
    for words, flags in ((COMPARING, ["--sync_bn"]), (["--bp"], [])):
        [whole] = states(*words, count=1)
        first, second = states(*words, *TWO, *flags, count=2)
        assert distance(first, whole) > 1e-5
        parameters = [name for name in first if "running" not in name]
        assert all(torch.equal(first[name], second[name]) for name in parameters)
        assert (distance(first, second) > 1e-5) == (not flags)


@pytest.mark.parametrize("words", [["--bp"], ["--dfa"], COMPARING, ["--dgl", "--is_direct_global"]], ids=" ".join)
def test_replicas_are_networks_with_averaged_gradients(run, grid, words: list[str]) -> None:
    """Bit for bit; the checkpoint has the statistics of the first."""
    plain = [*words, "--momentum", "0", "--no_nesterov", "--epochs", "1"]
    assert grid(*plain, *TWO).wait() == [0, 0]
    found = run.state()["method"]
    for name, value in averaged_by_hand(plain, run).items():
        assert torch.equal(found[name], value), name


def test_torchs_own_numbers_are_others_in_every_replica_at_every_step() -> None:
    args, feed, method = small_args(), make_feed(), make_method("bp").float()
    seeds = set()
    for replica in range(3):
        steps = Steps(args, method, feed, replica)
        for step in range(2):
            steps.batch(step)
            seeds.add(torch.initial_seed())
    assert len(seeds) == 6


def test_two_runs_have_the_same_bits(run, grid, same) -> None:
    words = ["--dgl", "--dropout_prob", "0.3", "--ssl", "--ssl_task", "inpaint", "--deterministic", *TWO]
    assert grid(*words).wait() == [0, 0]
    first, records = run.state(), without_times(run.records())
    assert grid(*words).wait() == [0, 0]
    assert len(run.folders) == 2
    same(first, run.state())
    assert without_times(run.records()) == records


DROPPING = ["--bp", "--dropout_prob", "0.3", "--optimizer_type", "AdamW", *TWO]


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_to_one_stops_both_and_they_go_on(run, grid, same, stopped: int) -> None:
    grid(*DROPPING).wait()
    whole, records = run.state(), without_times(run.records())
    assert grid(*DROPPING, before=stop_after(6, stopped)).wait() == [143, 143]
    folder = run.last
    assert run.summary()["status"] == "interrupted" and run.state()["step"] == 7
    assert grid("--resume", str(folder)).wait() == [0, 0]
    same(whole, run.state(folder))
    assert without_times(run.records(folder)) == records


def kill_in_average(number: int, rank_to_kill: int) -> Callable[[int], None]:
    """Kill a process in place of its average of BatchNorm's numbers with that number, for which the other waits."""

    def prepare(rank: int) -> None:
        mean, calls = Ranks.mean, []

        def mean_or_die(self: Ranks, values: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if rank == rank_to_kill and len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return mean(self, values)

        Ranks.mean = mean_or_die

    return prepare


PER_STEP = 12  # averages in a step of three layers: two in a forward pass, two in a backward pass


@pytest.mark.parametrize(
    ("killed", "fault"),
    [(1, kill_at(7, 1)), (0, kill_in_average(7 * PER_STEP + 2, 0)), (1, kill_in_average(8 * PER_STEP - 1, 1))],
    ids=["between steps", "forward", "backward"],
)
def test_a_killed_replica_ends_the_other_and_nothing_saved_is_lost(run, grid, same, killed: int, fault) -> None:
    words = [*DROPPING, "--sync_bn"]
    grid(*words).wait()
    whole = run.state()
    both = grid(*words, before=fault)
    codes = both.wait()
    assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1)
    if killed:
        assert both.errors[0].count("\n") == 1
        assert "lost the connection to another process of this run" in both.errors[0]
    assert not both.errors[1]
    folder = run.last
    assert run.state()["step"] == 5  # the end of the first epoch
    assert grid("--resume", str(folder)).wait() == [0, 0]
    same(whole, run.state(folder))


def test_a_loss_that_is_not_finite_ends_both_with_one_line(run, grid) -> None:
    both = grid("--bp", *TWO, "--learning_rate", "1e18", "--lr_schedule", "constant")
    assert both.wait() == [1, 1]
    assert "is not finite at step" in both.errors[0] and both.errors[0].count("\n") == 1
    assert not both.errors[1]
    assert run.summary()["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "count", "code", "message"),
    [
        (["--bp"], 2, 2, "give --num_replicas 2 or --layer_parallel processes, or start one"),
        (["--bp", *TWO], 3, 2, "3 processes were started, but --num_replicas is 2; give --num_replicas 3, or start 2"),
        (["--bp", "--num_replicas", "3"], 3, 2, "--batch_size is 32"),
        (["--bp", *TWO, "--device", "cuda:7"], 2, 2, "--device cuda:7: this machine has"),
        (["--bp", *TWO, "--dataset", "cifar10", "--data_dir", "nowhere"], 2, 1, "not found"),
    ],
)
def test_what_cannot_be_is_one_line(run, grid, words: list[str], count: int, code: int, message: str) -> None:
    assert_refused(run, grid, words, count, code, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sync_bn"], "--sync_bn has no effect: it needs --num_replicas above 1"),
        ([*TWO, "--sync_bn", "--compile"], "--sync_bn and --compile exclude each other"),
        ([*TWO, "--cuda_graph", "on"], "--num_replicas and --cuda_graph on exclude each other: gradients are averaged"),
        (["--dgl", "--layer_parallel", "threads", *TWO], "exclude each other: these are one process"),
        (["--dgl", "--layer_parallel", "streams", *TWO], "exclude each other: these are one process"),
        (
            ["--dgl", "--supcon_loss_weight", "1", "--batch_size", "4", *TWO],
            "--batch_size 4 in 2 parts",
        ),
    ],
)
def test_settings_that_exclude_replicas_are_one_line(run, capsys, words: list[str], message: str) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.folders


def test_a_run_of_replicas_is_evaluated_by_one_process_and_resumed_by_as_many(run, grid, capsys) -> None:
    # What the leader measures alone, in training mode among others, waits for nobody.
    assert grid("--dgl", *TWO, "--sync_bn", "--diagnostics", "alignment,probes").wait() == [0, 0]
    assert main.main(["evaluate", str(run.last), "--linear", "--device", "cpu"]) == 0
    capsys.readouterr()
    for flag in ("--num_replicas=4", "--no_sync_bn"):
        assert run.resume(str(run.last), flag) == 2
        assert flag.strip("-").removeprefix("no_").partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "count", "num_replicas", "who"),
    [(1, 2, 2, "replica 1 was"), (1, 2, 1, "stage 1 was"), (3, 4, 2, "stage 1, replica 1, was"), (0, 1, 1, "stage 0")],
)
def test_the_process_that_was_killed_is_named(rank: int, count: int, num_replicas: int, who: str) -> None:
    assert f"the process of {who}" in str(_verdict({rank: -9}, count, num_replicas))


def test_more_replicas_than_gpus_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks, args = Ranks.__new__(Ranks), RunArgs(num_replicas=3)
    monkeypatch.setenv("RANK", "5")
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert ranks.device_name(args) == f"cuda:{rank}"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="this machine has 2"):
        ranks.device_name(args)


def test_steps_are_not_recorded() -> None:
    feed = SimpleNamespace(device=torch.device("cuda"), placement=Placement(True, ""))
    recorders, reason = choose_recorders(small_args(num_replicas=2), feed)
    assert recorders is None and "average their gradients" in reason


def test_a_batch_that_fits_is_one_that_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "activation_bytes", lambda method, batch, precision: 8 * 100)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    feed, method = make_feed(batch_size=24), make_method("bp").float()
    for count, said in ((1, "--batch_size 4 should fit"), (2, "--batch_size 8 should fit"), (8, "choose a smaller")):
        assert said in str(memory.explain(method, feed, "fp32", count))
