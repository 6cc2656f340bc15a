"""The tutorial's commands, in its order, as they stand there; only images and trials are fewer."""

from __future__ import annotations

import csv
import glob
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml

import cli
import main
from consts import VERBS
from tests.engine.test_threads import after

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "tutorial.md").read_text()
COMMANDS = re.findall(r"^    python main\.py (.*)$", PAGE, re.MULTILINE)
[SWEEP] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[RULE] = re.findall(r"^```python\n(.*?)^```", (DOCS / "own_rule.md").read_text(), re.MULTILINE | re.DOTALL)
FEWER = ["--train_size", "160", "--device", "cpu", "--precision", "fp32", "--wandb", "disabled"]
ALONE = "--model VGGs"  # in every command that trains here; the last one needs a download


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files that the page has the reader save."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    parameters = yaml.safe_load(SWEEP)
    parameters["parameters"] |= {
        "train_size": {"value": 160},
        "val_size": {"value": 40},
        "wandb": {"value": "disabled"},
    }
    parameters["parameters"] |= {"epochs": {"value": 1}, "pred_aux_type": {"value": "linear"}}
    (tmp_path / "my/rates.yaml").write_text(yaml.safe_dump(parameters))
    (tmp_path / "my/tempered.py").write_text(RULE)
    return tmp_path


def words_of(command: str) -> list[str]:
    """The words as a shell gives them, with fewer images for a run."""
    words = [path for word in shlex.split(command) for path in (sorted(glob.glob(word)) or [word])]
    return words if words[0] in VERBS else [*words, *FEWER]


def test_every_command_works_in_its_order(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    *commands, last = COMMANDS
    assert len(commands) == 13 and all(ALONE in each or each.split()[0] in VERBS for each in commands)
    for command in commands:
        words = words_of(command)
        with monkeypatch.context() as patch:
            is_stopped = "--name long" in command and "--resume" not in command
            if is_stopped:
                after(6, patch)
            assert main.main(words) == (143 if is_stopped else 0), command
    assert cli.parse(last.split()).args.data.download
    out = capsys.readouterr().out
    assert "going on with" in out and "network, block_02" in out and "is the best of 2" in out
    rows = csv.DictReader((folder / "experiments/tutorial/report/runs.csv").open())
    assert Counter(row["method"] for row in rows) == {"dgl": 6, "bp": 3, "tempered": 1}
    summaries = [json.loads(path.read_text()) for path in folder.glob("experiments/tutorial/*/summary.json")]
    assert len(summaries) == 8 and {each["status"] for each in summaries} == {"done"}


def test_the_sweep_of_the_page_is_one(tmp_path: Path) -> None:
    from sweeps.check import check
    from sweeps.file import read_sweep

    (tmp_path / "rates.yaml").write_text(SWEEP)
    file = read_sweep(tmp_path / "rates.yaml")
    check(file)
    assert file.grid_size == 4
