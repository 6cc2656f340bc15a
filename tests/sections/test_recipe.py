"""A rule's recipe: its defaults for the optimisation, below files and flags."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import cli
import main
from schemas import build_args, method_sections, recipe_of, settings_of
from sections.rule import MethodArgs, recipe

RULE = '''"""A rule."""
from methods.bp import BackPropagation
from sections.rule import MethodArgs, recipe
class MineArgs(MethodArgs):
    """Mine."""
    RECIPE = recipe({settings})
class Mine(BackPropagation):
    """Mine."""
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(RULE.format(settings="learning_rate=0.25, momentum=0.5"))
    return file


def rate(*words: str) -> float:
    args = cli.parse(words).args
    assert args is not None
    return args.optim.learning_rate


def test_the_recipe_is_the_default_and_files_and_flags_win(mine: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("learning_rate: 0.125\n")
    assert rate("--bp") != 0.25
    assert rate("--method", str(mine)) == 0.25
    assert rate("--method", str(mine), "--config", str(config)) == 0.125
    assert rate("--method", str(mine), "--config", str(config), "--learning_rate", "0.5") == 0.5


def test_print_config_shows_it(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--method", str(mine), "--print_config"]) == 0
    optim = yaml.safe_load(capsys.readouterr().out)["optim"]
    assert (optim["learning_rate"], optim["momentum"]) == (0.25, 0.5)


def test_help_shows_it(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(["--method", str(mine), "--help", "optim"])
    assert ended.value.code == 0
    assert "[default 0.25; above 0]" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("settings", ["learning_rat=0.1", "learning_rate=-1", "model='VGG16'"])
def test_a_recipe_with_what_is_not_a_setting_of_the_optimisation_is_refused(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(RULE.format(settings=settings))
    assert main.main(["--method", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValidationError):
        recipe(**{settings.partition("=")[0]: -1})


@pytest.mark.parametrize("name", method_sections())
def test_settings_and_their_listed_defaults_agree(name: str) -> None:
    flat, fields = build_args({"method": name}).flat(), settings_of(name)
    for setting, value in recipe_of(name).items():
        assert flat[setting] == fields[setting].default == value
    assert MethodArgs.RECIPE == {}
