"""Imports point one way, settings are values, and the engine knows nobody by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import methods
from consts import NETWORKS

ROOT = Path(__file__).parent.parent
# Low to high. Rooms of one rank do not import each other; `reports` and `cli` see settings and files, never the
# network.
RANKS = [
    {"consts", "utils"}, {"sections", "layers"}, {"schemas", "reports"}, {"cli", "model", "datamodules"},
    {"heads", "networks", "objectives"}, {"tasks"}, {"methods"}, {"diagnostics"}, {"engine"}, {"studies"}, {"sweeps"},
    {"main", "benchmarks"},
]  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
# Inside the engine; files that stand in no room are at the top.
ENGINE_RANKS = [{"devices", "run"}, {"loop"}, {"parallel"}, {"top"}]
ENGINE_RANK = {room: rank for rank, rooms in enumerate(ENGINE_RANKS) for room in rooms}
FILES = [
    path
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/**/*.py")]
    if path.relative_to(ROOT).parts[0].removesuffix(".py") in RANK
]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level names imported by a file, and whether the import stands at module level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(ast.iter_child_nodes(tree))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.partition(".")[0], node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module.partition(".")[0], node in top))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_points_upward_or_sideways(path: Path) -> None:
    room = room_of(path)
    for name, _ in imports(path):
        if name in RANK and name != room:
            assert RANK[name] < RANK[room], f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_out_of_the_light_rooms(path: Path) -> None:
    room, found = room_of(path), imports(path)
    heavy = {"torch", "torchvision", "pytorch_lightning", "wandb", "matplotlib"}
    if room in ("consts", "utils", "sections", "schemas", "cli"):
        assert not heavy & {name for name, _ in found}
    if room == "reports":
        assert not (heavy - {"matplotlib"}) & {name for name, _ in found}
    if room == "sweeps":
        assert not (heavy - {"matplotlib"}) & {name for name, _ in found}  # the trials train, the sweep watches
    if room in ("main", "reports", "sweeps"):
        assert not heavy & {name for name, top in found if top}
    assert "ray" not in {name for name, top in found if top}  # an extra that few have
    if room in ("methods", "tasks", "heads", "networks", "objectives", "model"):
        assert not {"pytorch_lightning", "wandb", "loguru"} & {name for name, _ in found}


def test_reports_see_constants_and_helpers_only() -> None:
    for path in FILES:
        if room_of(path) == "reports":
            assert {name for name, _ in imports(path) if name in RANK} <= {"consts", "utils", "reports"}, path


def engine_room(names: list[str]) -> str:
    """``["engine", "loop", "part"]`` is in ``loop``."""
    return names[1] if len(names) > 1 and names[1] in ENGINE_RANK else "top"


def test_the_rooms_of_the_engine_have_an_order() -> None:
    for path in FILES:
        names = list(path.relative_to(ROOT).with_suffix("").parts)
        if names[0] != "engine" or names[-1] == "__init__":
            continue
        room = engine_room(names)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("engine"):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
                for other in {engine_room(module.split(".")) for module in modules} - {room}:
                    assert ENGINE_RANK[other] < ENGINE_RANK[room], f"{path.name} in {room} imports {other}"


def test_the_module_knows_the_interface_of_layouts_only() -> None:
    modules = {
        node.module
        for node in ast.walk(ast.parse((ROOT / "engine" / "module.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    concrete = {"layouts", "loop.eager", "loop.recorded", "loop.recorders", "parallel.threads", "parallel.processes"}
    assert not modules & {f"engine.{name}" for name in concrete | {"parallel.streams", "parallel.stage"}}


def test_the_engine_and_studies_name_no_method_and_no_network() -> None:
    names = {*methods.names(), *NETWORKS}
    for path in FILES:
        if room_of(path) in ("engine", "studies"):
            words = {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not words & names, path


def test_top_level_names_hide_no_standard_module() -> None:
    import sys

    own = {path.stem for path in ROOT.glob("*.py")} | {
        path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
    }
    assert not own & set(sys.stdlib_module_names)
