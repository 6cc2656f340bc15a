"""What is written about the code is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_page_of_the_methods_is_current() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_is_short_and_names_things_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") < 150
    for path in re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(
        r"`((?:docs|configs|images|datamodules)/[\w./-]*)`", text
    ):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"--config (\S+)", text):
        assert (ROOT / path).exists(), path


def test_every_command_of_the_readme_parses() -> None:
    import cli

    commands = re.findall(r"^    python (?:\./)?main\.py(.*?)(?:#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = command.split()
        if "--help" not in words and "--resume" not in words:  # these end the program or look for a run
            cli.parse(words)


def test_the_page_on_own_data_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import main
    from datamodules import cache
    from engine.run.folder import RunFolder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "home", lambda: tmp_path / "cache")  # the variable would move matplotlib's cache too
    monkeypatch.setenv("WANDB_MODE", "disabled")
    text = (ROOT / "docs" / "data.md").read_text()
    scripts = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^    python main\.py (.*)$", text, re.MULTILINE)
    assert (len(scripts), len(commands)) == (2, 4)
    for script in scripts:
        exec(compile(script, "docs/data.md", "exec"), {})
    for command in commands:
        assert main.main([*command.split(), "--device", "cpu"]) == 0, command
    runs = [RunFolder(path).summary() for path in (tmp_path / "experiments").iterdir()]
    assert len(runs) == 4 and all(summary["best_test_accuracy"] > 50 for summary in runs)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    assert "x_train: pixels are rounded to 256 levels" in capsys.readouterr().out
