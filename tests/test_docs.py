"""What is written about the code is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
