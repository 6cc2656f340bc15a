"""The environment of a run: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consts import NAME, VERSION

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "wandb", "pydantic", "numpy")


def _git(*words: str) -> str | None:
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def version() -> str:
    """The program's version and commit, Python's, and those of the packages on which its figures depend most."""
    commit = _git("rev-parse", "--short", "HEAD")
    words = [f"{NAME} {VERSION}" + (f" (commit {commit})" if commit else ""), f"Python {platform.python_version()}"]
    return ", ".join([*words, *(f"{package} {_version(package) or 'missing'}" for package in _PACKAGES)])


def environment(device: torch.device, seed: int) -> dict[str, Any]:
    """Commit, whether there were uncommitted changes, versions, device, host, seed. No environment variables."""
    import torch

    status = _git("status", "--porcelain")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
        "version": VERSION,
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in _PACKAGES} | {"torch": torch.__version__},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "host": platform.node(),
        "system": platform.platform(),
        "seed": seed,
    }
