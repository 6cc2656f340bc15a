"""How a command starts: what it says first, and what it loads."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.loading import quick_imports

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parent.parent
SMALL = "--dgl --dataset digits --train_size 32 --batch_size 16 --epochs 1 --model VGG11 --device cpu --wandb disabled"

# Runs main.py as a person does; says when torch begins to load, and writes down what was loaded at the end.
WATCHED = """
import json, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch begins to load", flush=True)

sys.meta_path.insert(0, Watch())
absent, *sys.argv = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split()))  # None: importing it fails as if it were not installed
sys.path[0] = sys.argv[0].removesuffix("main.py")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    json.dump([name for name, module in sys.modules.items() if module], open("loaded.json", "w"))
"""


def start(words: str, folder: Path, absent: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WATCHED, absent, str(ROOT / "main.py"), *words.split()]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A run of two steps where wandb is not installed, and the modules that it loaded."""
    folder = tmp_path_factory.mktemp("run")
    done = start(SMALL, folder, absent="wandb")
    assert done.returncode == 0, done.stderr
    return done, set(json.loads((folder / "loaded.json").read_text()))


def test_the_first_line_comes_before_torch_and_says_what_and_where(run) -> None:
    first, second = run[0].stdout.splitlines()[:2]
    assert first.endswith("Starting: VGG11 with dgl on digits, 1 epoch, device cpu")
    assert second == "torch begins to load"


def test_a_run_loads_nothing_that_it_does_not_use(run) -> None:
    loaded = run[1]
    assert {"torch", "pytorch_lightning"} <= loaded  # the list below is not of an empty run
    assert not {"optuna", "ray", "datamodules.torchvision_sets", "datamodules.folder", "studies"} & loaded


def test_a_run_needs_no_wandb_where_it_is_disabled(run) -> None:
    assert "wandb" not in run[0].stdout + run[0].stderr


@pytest.mark.parametrize("fails", [False, True])
def test_imports_go_without_the_search_for_garbage_once(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    try:
        with contextlib.suppress(ImportError), quick_imports():
            assert not gc.isenabled()
            if fails:
                raise ImportError
        assert gc.isenabled()
        assert (gc.get_freeze_count() > 0) != fails
    finally:
        gc.unfreeze()
    monkeypatch.setitem(sys.modules, "pytorch_lightning", sys)
    with quick_imports():
        assert gc.isenabled()
