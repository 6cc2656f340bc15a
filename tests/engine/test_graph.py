"""Steps that were recorded once and are repeated without the host give the bits of eager steps.

On a CPU `engine.loop.tape` records in place of a CUDA graph: the same program and the same chunks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from datamodules.placement import Placement
from engine.layouts import build_layout, choose_recorders, obstacle
from engine.loop.eager import Eager, Worker
from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter, Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.recorded import Recorded, Recording, Uncapturable
from engine.loop.recorders import Recorder, no_waiting
from engine.loop.steps import Steps
from engine.loop.tape import Tape
from methods._base import Method
from methods.bp import BackPropagation
from schemas import Args, build_args
from tests.conftest import CASES, CLASSES, make_method
from tests.engine.conftest import no_eager_steps
from tests.engine.test_run import without_times
from tests.engine.test_threads import after

SGD = "--optimizer_type SGD --momentum 0.9 --weight_decay 0.001 --lr_schedule one_cycle"
RUNS = {
    "bp": f"--bp {SGD} --random_crop --random_horizontal_flip",
    "dgl": f"--dgl {SGD} --random_crop --random_horizontal_flip --random_erasing --gradient_clip 0.5",
    "dgl bf16": f"--dgl {SGD} --precision bf16 --random_crop",
    "bp bf16 adam": "--bp --precision bf16 --optimizer_type Adam --learning_rate 0.001",
    "dgl sign": "--dgl --optimizer_type SignSGD --learning_rate 0.0001 --momentum 0 --no_nesterov",
    "predsim adam": "--predsim --optimizer_type Adam --learning_rate 0.001 --random_resized_crop --random_erasing",
    "dni adamw": "--dni --optimizer_type AdamW --learning_rate 0.001 --lr_schedule cosine --warmup_epochs 0.5",
    "fa": f"--fa {SGD} --no_nesterov",
    "sequential": f"--dgl --sequential --num_modules 2 {SGD} --random_crop",
    "simclr": f"--dgl {SGD} --simclr_loss_weight 0.5 --random_crop --random_erasing",
    "dgl man": f"--dgl --man --man_momentum 0.9 {SGD}",
    "no momentum": "--bp --momentum 0 --no_nesterov --lr_schedule multistep",
    "dropout": f"--dgl {SGD} --dropout_prob 0.2 --overlap 1",
    "tasks that draw": f"--dgl {SGD} --cpc_loss_weight 0.5 --inpaint_loss_weight 0.5 --dropout_prob 0.1",
}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on steps are recorded also on a CPU, and none is taken in another way but for the comparison."""

    def use() -> None:
        monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Tape, ""))
        no_eager_steps(monkeypatch)

    return use


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_has_the_bits_of_an_eager_one(run, same, recorded, capsys, name: str) -> None:
    words = [*RUNS[name].split(), "--epochs", "2"]
    assert run(*words) == 0
    assert "Steps: one CUDA graph each" not in capsys.readouterr().out
    whole, records, generator = run.state(), without_times(run.records()), torch.get_rng_state()
    recorded()
    assert run(*words) == 0
    assert "Steps: one CUDA graph each" in capsys.readouterr().out
    same(whole, run.state())
    assert torch.equal(torch.get_rng_state(), generator)
    assert without_times(run.records()) == records


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("step", [0, 6])
def test_either_path_goes_on_with_the_other(run, same, monkeypatch: pytest.MonkeyPatch, optimizer, step: int) -> None:
    words = ["--dgl", "--random_crop", "--optimizer_type", optimizer, "--learning_rate", "0.01"]
    run(*words)
    whole, records = run.state(), without_times(run.records())
    for first, second in ((None, Tape), (Tape, None)):
        monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed, way=first: (way, "off"))
        with monkeypatch.context() as patch:
            after(step, patch)
            assert run(*words) == 143
        folder = run.last
        monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed, way=second: (way, "off"))
        assert run.resume(str(folder), "--cuda_graph", "off") == 0
        same(whole, run.state(folder))
        assert without_times(run.records(folder)) == records


def make_feed(device: str = "cpu", batch_size: int = 6, two_views: bool = False) -> Feed:
    source = torch.Generator().manual_seed(3)
    images = torch.randint(256, (40, 8, 8, 3), dtype=torch.uint8, generator=source)
    labels = torch.randint(len(CLASSES), (40,), generator=source)
    spec = DataSpec("test", 3, 8, 8, CLASSES, (0.5,) * 3, (0.5,) * 3)
    augment = small_args().data
    return Feed(
        ImageSet(images, labels), spec, batch_size, torch.device(device), augment=augment, seed=1, two_views=two_views
    )


def small_args(**settings: object) -> Args:
    return build_args({"random_crop": True, "random_erasing": True, "epochs": 2, "precision": "fp32"} | settings)


def everything(method: Method, optimizer: torch.optim.Optimizer) -> dict:
    return copy.deepcopy({"method": method.state_dict(), "optimizer": optimizer.state_dict()})


@pytest.mark.parametrize("optimizer_type", ["SGD", "Adam"])
@pytest.mark.parametrize("loaded", [False, True])
def test_recording_leaves_no_trace(same, optimizer_type: str, loaded: bool) -> None:
    args, method = small_args(optimizer_type=optimizer_type), make_method("dgl").float()
    feed, optimizer = make_feed(), build_optimizer(args.optim, method)
    if loaded:
        method.fill_grads(feed.batch(0, 0))
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before, generator = everything(method, optimizer), torch.get_rng_state()
    places = {name: value.data_ptr() for name, value in method.state_dict().items()}
    record(args, method, feed, optimizer, Tape(), step=11)
    now = everything(method, optimizer)
    same(before["method"], now["method"])
    same(before["optimizer"]["param_groups"], now["optimizer"]["param_groups"])
    if loaded:
        same(before["optimizer"]["state"], now["optimizer"]["state"])
    else:
        values = [value for entry in now["optimizer"]["state"].values() for value in entry.values()]
        assert values and not any(value.any() for value in values)
    assert places == {name: value.data_ptr() for name, value in method.state_dict().items()}
    assert all(parameter.grad is None for parameter in method.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


# What the tape records of a forward derivative has other roundings: torch takes other formulas while a mode looks on.
FORWARD = {case for case in CASES if CASES[case][0] == "fg"}


@pytest.mark.parametrize("case", [case for case in CASES if case not in FORWARD])
def test_every_method_can_be_recorded(same, case: str) -> None:
    """In every case of the contract tests; the first steps of an epoch, and one of the next."""
    args, steps = small_args(), (range(3), range(3, 6), range(6, 7))
    one, other = make_method(case).float(), make_method(case).float()
    feed = make_feed(two_views=one.two_views)
    optimizers = [build_optimizer(args.optim, method) for method in (one, other)]
    recorded, eager = (
        build_layout(args, method, feed, optimizer, recorders=recorders)
        for method, optimizer, recorders in zip((one, other), optimizers, (Tape, None), strict=True)
    )
    assert isinstance(recorded, Recorded) and isinstance(eager, Eager)
    totals, expected = Totals(), Totals()
    for chunk in steps:
        totals, expected = recorded.run(Course(chunk, totals)), eager.run(Course(chunk, expected))
    assert totals == expected
    same(one.state_dict(), other.state_dict())


def record(
    args: Args, method: Method, feed: Feed, optimizer: torch.optim.Optimizer, recorder: Recorder, step: int = 0
) -> Recorded:
    """Without the way back to eager steps that `build_layout` has."""
    part = Part(method, optimizer, Rules(args.run.precision, args.optim.gradient_clip))
    return Recorded(Recording(Program(part, Steps(args, method, feed)), recorder, step))


def test_a_replay_runs_none_of_the_steps_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the twin would hide what a CUDA graph shows."""
    method, seen = make_method("bp").float(), []
    fill = BackPropagation.fill_grads

    def counting(self: BackPropagation, batch):
        seen.append(len(seen))
        return fill(self, batch)

    monkeypatch.setattr(BackPropagation, "fill_grads", counting)
    args, feed = small_args(), make_feed()
    layout: Layout = record(args, method, feed, build_optimizer(args.optim, method), Tape())
    recorded = len(seen)
    layout.run(Course(range(4)))
    assert len(seen) == recorded


def draw(self: BackPropagation, batch, fill=BackPropagation.fill_grads):
    return fill(self, batch._replace(x_BCHW=batch.x_BCHW + torch.rand(1)))


def test_a_method_that_draws_random_numbers_goes_the_eager_way(run, same, monkeypatch, capsys) -> None:
    monkeypatch.setattr(BackPropagation, "fill_grads", draw)
    run("--bp")
    whole = run.state()
    capsys.readouterr()
    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Tape, ""))
    assert run("--bp") == 0
    said = "Steps: eager, since a step cannot be captured: its method draws from torch's own generator"
    assert said in capsys.readouterr().out
    same(whole, run.state())


class Refuses(Tape):
    """Fails as a capture does: the end of it raises an error of its own."""

    def capture(self, step, generators=()):
        try:
            step()
            raise RuntimeError("operation not permitted\nand many lines")
        finally:
            raise RuntimeError("capture was invalidated")


def test_a_capture_that_fails_is_named_and_changes_nothing(run, same, monkeypatch, capsys) -> None:
    run("--dgl")
    whole = run.state()
    capsys.readouterr()
    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Refuses, ""))
    assert run("--dgl") == 0
    assert "eager, since a step cannot be captured: operation not permitted\n" in capsys.readouterr().out
    same(whole, run.state())
    assert run("--dgl", "--cuda_graph", "on") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "--cuda_graph on: a step cannot be captured: operation not permitted" in line
    assert run.summary()["status"] == "failed"


def test_a_graph_that_is_asked_for_needs_a_gpu(run, capsys) -> None:
    assert run("--cuda_graph", "on") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--cuda_graph on: CUDA graphs need a GPU" in line
    assert run.folders == []


def test_what_the_settings_rule_out_is_known_before_a_run() -> None:
    feed = SimpleNamespace(device=torch.device("cuda:0"), placement=Placement(True, ""))
    assert obstacle(small_args(), feed) == ""
    assert "--layer_parallel" in obstacle(small_args(method="dgl", layer_parallel="threads"), feed)
    assert choose_recorders(small_args(cuda_graph="off"), feed) == (None, "--cuda_graph off")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RUNS)
def test_a_graph_gives_the_bits_of_an_eager_run_on_a_gpu(run, same, capsys, name: str) -> None:
    words = [*RUNS[name].split(), "--epochs", "2", "--device", "cuda:0", "--deterministic"]
    try:
        assert run(*words, "--cuda_graph", "off") == 0
        whole, records = run.state(), without_times(run.records())
        assert run(*words, "--cuda_graph", "on") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert "Steps: one CUDA graph each" in capsys.readouterr().out
    same(whole, run.state())
    assert without_times(run.records()) == records


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_no_path_waits_for_a_gpu_inside_a_chunk(case: str) -> None:
    device, args = torch.device("cuda:0"), small_args()
    method = make_method(case).float().to(device)
    feed = make_feed("cuda:0", two_views=method.two_views)
    optimizer = build_optimizer(args.optim, method)
    recorders, _ = choose_recorders(args, feed)
    recorded = record(args, method, feed, optimizer, recorders())
    worker, meter = Worker(Part(method, optimizer, Rules()), Steps(args, method, feed)), Meter()

    def take(step: int) -> None:
        worker.take(worker.item(step, worker.steps.batch(step)), meter)

    take(0)
    with no_waiting():  # across the end of an epoch
        for step in (4, 5, 6, 7):
            take(step)
            recorded.launch(Course(range(step, step + 1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_method_that_waits_for_a_gpu_is_found_before_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: BackPropagation, batch, fill=BackPropagation.fill_grads):
        output = fill(self, batch)
        output.losses[-1].item()
        return output

    monkeypatch.setattr(BackPropagation, "fill_grads", read)
    device, args = torch.device("cuda:0"), small_args()
    method = make_method("bp").float().to(device)
    feed = make_feed("cuda:0")
    recorders, _ = choose_recorders(args, feed)
    with pytest.raises(Uncapturable, match="synchronizing"):
        record(args, method, feed, build_optimizer(args.optim, method), recorders())
    torch.cuda.empty_cache()  # which torch 2.11 refuses after a capture that failed
