"""Bits depend on settings and seed alone; `tests/methods/test_golden.py` compares them with earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.faults import inject
from tests.faults.conftest import last_state, only_run
from tests.faults.process import SMALL, finish
from tests.faults.test_resume import ROWS

WATCHED = {
    "wandb": ["--wandb", "offline"],
    "no progress bar": ["--no_progress_bar"],
    "log interval": ["--log_interval", "3"],
    "pictures": [],
}


@pytest.mark.faults
@pytest.mark.parametrize("way", WATCHED)
@pytest.mark.parametrize("row", ["bp", "dgl"])
def test_results_do_not_depend_on_how_a_run_is_watched(
    row: str, way: str, tmp_path: Path, whole: Callable[..., Path], same: Callable[[dict, dict], None]
) -> None:
    fault = inject.pictures if way == "pictures" else None
    assert finish([*SMALL, *ROWS[row], *WATCHED[way]], tmp_path, fault).exit_code() == 0
    expected, found = last_state(whole(*ROWS[row])), last_state(only_run(tmp_path))
    for part in ("method", "optimizer"):
        same(expected[part], found[part])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.faults
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("row", ROWS)
def test_deterministic_gives_equal_bits_on_one_gpu(
    row: str, precision: str, tmp_path: Path, same: Callable[[dict, dict], None]
) -> None:
    states = []
    for name in ("first", "second"):
        words = [*SMALL, *ROWS[row], "--device", "cuda:0", "--precision", precision, "--deterministic", "--path", name]
        run = finish(words, tmp_path)
        assert (run.exit_code(), run.errors()) == (0, [])
        [path] = (tmp_path / name).iterdir()
        states.append(last_state(path))
    same(*states)
