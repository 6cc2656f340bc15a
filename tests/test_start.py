"""How a command starts: what it says first, what it loads, and what it says where a package is missing."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import main
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


PACKAGE_ERRORS = {
    "--device cuda:0 --dgl": "make run ARGS='--device cuda:0 --dgl'`",
    "": "or `make run`",
    "--help": "make run ARGS=--help`",
    "report runs": "make run ARGS='report runs'`",
    "sweep file.yaml": "make run ARGS='sweep file.yaml'`",
    "--name a$b": """make run ARGS='--name '"'"'a$$b'"'"''`""",
}


@pytest.mark.parametrize(("words", "end"), PACKAGE_ERRORS.items(), ids=PACKAGE_ERRORS)
def test_a_python_without_the_packages_is_told_what_to_type(words: str, end: str, tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(ROOT / "main.py"), *words.split()]  # -S: no site-packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{sys.executable} has no module 'pydantic': run `make setup`, then `. .venv/bin/activate`" in done.stderr
    assert done.stderr.endswith(f"{end}\n")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missed_late_leaves_nothing_either(tmp_path: Path) -> None:
    done = start(SMALL, tmp_path, absent="torch")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "has no module 'torch': run `make setup`" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["loaded.json"]


@pytest.mark.parametrize("name", ["numpy.no_such_part", "engine.no_such_part", None])
def test_an_import_that_fails_inside_a_package_keeps_its_traceback(name, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: object) -> None:
        raise ModuleNotFoundError("planted", name=name)

    monkeypatch.setitem(main.HANDLERS, "train", fail)
    with pytest.raises(ModuleNotFoundError, match="planted"):
        main.main(["--dgl"])


@pytest.mark.parametrize(("target", "says"), [("setup", True), ("run", False)])
def test_make_setup_ends_with_what_to_type_next(target: str, says: bool, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in (tmp_path / ".ci/setup", tmp_path / ".venv/bin/python"):
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("PY", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", target], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("`. .venv/bin/activate`, then `python main.py" in done.stdout) == says
