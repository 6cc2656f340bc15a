"""A network from a file, as a user would write it."""

from __future__ import annotations

from pathlib import Path

import pytest

NET = """from torch import nn


def block(before, after, prob=0.3):
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.Dropout(prob), nn.MaxPool2d(2)
    )


def build(spec):
    blocks = [block(spec.num_channels, 4), block(4, 6), block(6, 5)]
    side = spec.height // 8
    return blocks, nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(5 * side * side, spec.num_classes))
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file; ``--model {net}:build``. That it was named is remembered for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path
