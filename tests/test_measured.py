"""What `docs/measured.py` writes into the README and the files of settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from reports.groups import group_runs
from reports.runs import Run

ROOT = Path(__file__).parent.parent
FILE = ROOT / "configs" / "basiccnn_dgl.yaml"


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measured", ROOT / "docs" / "measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_of(settings: dict[str, object], seed: int, final: float, **changes: object) -> Run:
    summary = {
        "status": "done",
        "final_test_accuracy": final,
        "train_cpu_s": 3600,
        "chosen_on": "test",
        "machine": "EPYC",
    }
    config = settings | {"dataset": "folder", "data_dir": "elsewhere", "precision": "bf16", "seed": seed} | changes
    return Run(Path(), f"run{seed}{final}", summary, config, [], [], ())


def test_a_file_finds_the_runs_of_its_settings_and_no_others(measured: ModuleType) -> None:
    settings = measured.settings_in(FILE)
    same = [run_of(settings, 0, 80.0), run_of(settings, 1, 82.0)]
    others = [run_of(settings, 0, 90.0, learning_rate=3.0), run_of(settings, 0, 91.0, epochs=1)]
    group = measured.matching(settings, group_runs(same + others))
    assert group is not None and [run.number("final_test_accuracy") for run in group.runs] == [80.0, 82.0]
    assert measured.matching(settings, group_runs(others)) is None


def test_the_line_stands_above_the_command_once_and_goes_with_its_runs(measured: ModuleType) -> None:
    settings, text = measured.settings_in(FILE), "# BasicCNN.\n# python main.py --config a\nmodel: BasicCNN\n"
    (group,) = group_runs([run_of(settings, 0, 80.0), run_of(settings, 1, 82.0)])
    filled = measured.filled_config(text, group)
    line = filled.splitlines()[1]
    assert line.startswith("# Measured: 81.00 ± 1.41 % test accuracy after the last epoch")
    assert "JPEG copy of CIFAR-10, 2 seeds" in line and "1:00:00 of work in training on EPYC, bf16" in line
    assert measured.filled_config(filled, group) == filled
    assert measured.filled_config(filled, None) == text.replace("# python", "# Measured: not here in full.\n# python")


def test_the_readme_keeps_what_stands_around_the_table(measured: ModuleType) -> None:
    before = f"a\n{measured.START}\nold\n{measured.END}\nb\n"
    assert measured.filled_readme(before, []) == f"a\n{measured.START}\n\n{measured.END}\nb\n"
    assert measured.START in (ROOT / "README.md").read_text()
