"""The files that name versions must agree, since each is somebody's only one: pip's, conda's, the set-up's."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]


def by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    named = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(named) == len(requirements), "a package is named twice"
    return named


def read_lines(file: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (TOP / file).read_text().splitlines())
    return [line for line in lines if line]


def pins_of(file: str) -> dict[str, str]:
    """Name -> version; a line that is not an exact pin is an error."""
    pins = {}
    for name, requirement in by_name([line for line in read_lines(file) if not line.startswith("-")]).items():
        pin = re.fullmatch(r"==([\w.]+)", str(requirement.specifier))
        assert pin, f"{file}: {requirement} is not a pin"
        pins[name] = pin[1]
    return pins


RANGES = {
    "requirements.txt": by_name(PROJECT["dependencies"]),
    "requirements-dev.txt": by_name(PROJECT["optional-dependencies"]["test"]),
}


def test_requirements_and_pyproject_name_the_same_packages() -> None:
    assert set(pins_of("requirements.txt")) == set(RANGES["requirements.txt"])


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, ranges in RANGES.items() for name in ranges])
def test_the_pin_lies_in_the_range(file: str, name: str) -> None:
    requirement = RANGES[file][name]
    assert len(requirement.specifier) == 2, f"{requirement} needs a lower and an upper bound"
    assert pins_of(file)[name] in requirement.specifier


@pytest.mark.parametrize(
    ("extra", "module"), [("ray", "sweeps.ray_engine"), ("tensorboard", "engine.run.tensorboard_log")]
)
def test_an_extra_is_not_required_and_the_refusal_without_it_names_its_range(extra: str, module: str) -> None:
    requirement = importlib.import_module(module).REQUIREMENT
    assert PROJECT["optional-dependencies"][extra] == [requirement]
    assert len(Requirement(requirement).specifier) == 2
    assert extra not in {*pins_of("requirements.txt"), *pins_of("requirements-dev.txt")}


def test_dev_requirements_add_to_the_runtime_ones() -> None:
    assert "-r requirements.txt" in read_lines("requirements-dev.txt")
    assert not set(pins_of("requirements-dev.txt")) & set(pins_of("requirements.txt"))


def test_conda_takes_the_pins_and_a_python_in_range() -> None:
    dependencies = yaml.safe_load((TOP / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in dependencies
    (python,) = [entry.partition("=")[2] for entry in dependencies if str(entry).startswith("python=")]
    assert python in SpecifierSet(PROJECT["requires-python"])


def test_set_up_accepts_the_pythons_of_pyproject() -> None:
    bounds = re.search(r"\((\d+), (\d+)\) <= sys.version_info < \((\d+), (\d+)\)", (TOP / ".ci/setup").read_text())
    assert bounds
    lowest, highest = ".".join(bounds.groups()[:2]), ".".join(bounds.groups()[2:])
    assert SpecifierSet(f">={lowest},<{highest}") == SpecifierSet(PROJECT["requires-python"])
