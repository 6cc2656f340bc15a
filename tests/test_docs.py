"""What is written about the code is what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cli
import methods

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("script", ["generate", "measured"])
def test_what_make_docs_writes_is_current(script: str) -> None:
    """The page of the methods; the README's table and the headers of ``configs/``, from the studies' tables."""
    done = subprocess.run([sys.executable, f"docs/{script}.py", "--check"], cwd=ROOT, capture_output=True, text=True)
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


def test_every_rule_has_its_family_on_the_page_and_in_the_picture() -> None:
    spec = importlib.util.spec_from_file_location("families", ROOT / "docs" / "families.py")
    assert spec and spec.loader
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    assert sorted(rule for family in families.FAMILIES for rule in family.rules) == methods.names()
    page, picture = ((ROOT / path).read_text() for path in ("docs/families.md", "images/families.svg"))
    for family in families.FAMILIES:
        rules = ", ".join(family.rules)
        assert re.search(rf"^\| {family.title} \|.*\| {rules} \|$", page, re.M), family.title
        assert f">{rules}<" in picture, f"{family.title}: make figures"


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
