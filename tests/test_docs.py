"""What is written about the code is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cli

ROOT = Path(__file__).parent.parent


def test_the_page_of_the_methods_is_current() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text().count("\n") < 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"`((?:docs|configs|images|datamodules)/[\w./-]*)`|--config (configs/\S+)", text):
        assert (ROOT / "".join(path)).exists(), path


def test_links_within_the_page_of_the_methods_lead_somewhere() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^## (.*)", text, re.M)}
    links = re.findall(r"\]\(#(.*?)\)", text)
    assert len(links) > 20 and set(links) <= headings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    """But those with files of the reader's own, which other tests run."""
    commands = re.findall(r"^    python (?:\./)?main\.py(.*?)(?: #.*)?$", page.read_text(), re.MULTILINE)
    assert page.name not in ("README.md", "commands.md", "tutorial.md") or len(commands) >= 5
    for words in map(str.split, commands):
        is_theirs = any(word.startswith(("my/", "your/")) for word in words)
        if not is_theirs and not {"--help", "--resume", "--curriculum_teacher"} & set(words):  # end, or look for a run
            cli.parse(words)
