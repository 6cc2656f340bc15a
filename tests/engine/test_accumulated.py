"""``--accumulate``: a step is the mean gradient of the parts of its batch, one after the other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import cli
import main
from engine import memory
from engine.layouts import build_layout, choose_recorders
from engine.loop.accumulated import Accumulated
from engine.loop.layout import Course
from engine.loop.optimizer import build_optimizer, update
from engine.loop.steps import Steps
from layers.dropout import Dropout
from layers.saved import SavedBytes
from methods._base import Method
from tests.conftest import gradients, make_method, strided_backbone
from tests.engine.test_graph import make_feed, small_args
from tests.engine.test_replicas import without_batch_norm
from utils import UsageError


def train(method: Method, parts: int, steps: range = range(4), **settings: object) -> dict[str, torch.Tensor]:
    """The state that some steps on batches of 6 leave, and their totals."""
    args = small_args(accumulate=parts, batch_size=6, learning_rate=0.1, **settings)
    feed = make_feed(two_views=method.two_views)
    feed._normalised = lambda pixels_BHWC, plain=feed._normalised: plain(pixels_BHWC).double()  # type: ignore
    layout = build_layout(args, method, feed, build_optimizer(args.optim, method))
    assert isinstance(layout, Accumulated) == (parts > 1)
    totals = layout.run(Course(steps))
    return method.state_dict() | {name: torch.tensor(value) for name, value in totals.sums.items()}


@pytest.mark.parametrize("case", ["bp", "dgl", "dfa", "dni", "ldrl", "dualprop", "dgl rotate"])
@pytest.mark.parametrize("parts", [2, 3])
def test_without_batch_norm_it_is_the_whole_batch(case: str, parts: int) -> None:
    """Where every loss is a mean over images that know nothing of each other, to rounding."""
    whole = make_method(case)
    without_batch_norm(whole)
    expected = train(copy.deepcopy(whole), 1)
    for name, value in train(whole, parts).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-10, msg=name)


def test_with_batch_norm_it_is_the_mean_over_parts_with_their_own_statistics() -> None:
    method = make_method("bp")
    by_hand, args, feed = copy.deepcopy(method), small_args(batch_size=6, learning_rate=0.1), make_feed()
    found = train(method, 2, range(2))
    feed._normalised = lambda pixels_BHWC, plain=feed._normalised: plain(pixels_BHWC).double()  # type: ignore
    steps, optimizer = Steps(args, by_hand, feed), build_optimizer(args.optim, by_hand)
    for step in range(2):
        batch = steps.batch(step)
        for rows in (slice(0, 3), slice(3, 6)):
            by_hand.fill_grads(batch._replace(x_BCHW=batch.x_BCHW[rows], y_B=batch.y_B[rows]))
        for parameter in by_hand.parameters():
            parameter.grad /= 2  # type: ignore[operator]
        update(optimizer, steps.rate(step), 0.0)
    for name, value in by_hand.state_dict().items():
        assert torch.equal(found[name], value), name
    assert int(found["backbone.blocks.0.features.1.num_batches_tracked"]) == 4


def test_parts_have_dropout_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    method, masks = make_method("bp", strided_backbone(dropout=0.5)), []
    plain = Dropout.forward
    monkeypatch.setattr(Dropout, "forward", lambda self, x: (masks.append((self.key, plain(x=x, self=self))), x)[1])
    train(method, 3, range(1))
    keys = [key for key, _ in masks]
    assert len(keys) == len(set(keys)) == 9  # three blocks, three parts


@pytest.mark.parametrize("case", ["bp", "dgl rotate"])
def test_steps_depend_on_their_number_alone(case: str) -> None:
    """So a run that goes on after a stop is the one without; torch's generator is left as the last step leaves it."""
    method, plain = make_method(case), {"momentum": 0, "nesterov": False}  # momentum is the optimiser's, made anew
    other = copy.deepcopy(method)
    whole, state = train(method, 2, range(4), **plain), torch.get_rng_state()
    train(other, 2, range(2), **plain)
    torch.rand(5)
    train(other, 2, range(2, 4), **plain)
    for name, value in other.state_dict().items():
        assert torch.equal(value, whole[name]), name
    assert torch.equal(torch.get_rng_state(), state)


def test_less_is_kept_for_the_backward_pass() -> None:
    peaks = []
    for parts in (1, 3):
        method = make_method("bp")
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            train(method, parts, range(1))
        peaks.append(counter.peak_bytes)
    assert peaks[1] < peaks[0] / 2


def test_gradients_are_gone_after_a_step() -> None:
    method = make_method("dgl")
    train(method, 2, range(1))
    assert all(gradient is None for gradient in gradients(method).values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accumulate", "3"], "--accumulate 3: the parts of a batch are equal, each at least two images"),
        (["--accumulate", "0"], "--accumulate '0': allowed is a whole number, at least 1"),
        (["--accumulate", "2", "--num_replicas", "2"], "each computes its own part of a batch already"),
        (["--accumulate", "2", "--dgl", "--layer_parallel", "threads"], "a stage works on whole batches"),
        (["--accumulate", "2", "--cuda_graph", "on"], "a graph holds a whole step"),
        (["--accumulate", "4", "--batch_size", "8", "--dgl", "--supcon_loss_weight", "1"], "--batch_size 8 in 4 parts"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--batch_size", "16", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_step_in_parts_is_not_captured() -> None:
    assert choose_recorders(small_args(accumulate=2), make_feed())[0] is None
    with pytest.raises(UsageError):
        cli.parse(["--accumulate=2", "--cuda_graph=on"])


def test_out_of_memory_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    method, feed = make_method("bp").float(), make_feed(batch_size=12)
    monkeypatch.setattr(memory, "activation_bytes", lambda method, probe, precision: 100 * len(probe.y_B))
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(100 * memory._REST * 5))
    said = str(memory.explain(method, feed, "fp32", accumulates=True))
    assert said.endswith("--batch_size 5 should fit, or --accumulate 3 with the batch as it is")
    assert "--accumulate" not in str(memory.explain(method, feed, "fp32"))


def test_a_run_of_the_program(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--model", "VGGs", "--epochs", "1", "--train_size", "120", "--batch_size", "24"]
    words += ["--wandb", "disabled", "--no_progress_bar", "--path", str(tmp_path), "--dgl", "--accumulate", "3"]
    assert main.main(words) == 0
    (run,) = tmp_path.iterdir()
    assert (run / "summary.json").is_file()
