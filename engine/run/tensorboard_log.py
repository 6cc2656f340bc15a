"""Write metrics for TensorBoard with torch's `SummaryWriter`, which needs the package ``tensorboard``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consts import TENSORBOARD_DIR
from engine.run.dashboard import Dashboard
from utils import UsageError

REQUIREMENT = "tensorboard>=2.17,<3"  # as the extra in pyproject.toml


class TensorBoardLog(Dashboard):
    """The metrics and pictures of a run in ``tensorboard/`` of its folder.

    Args:
        folder: the run folder.
        step: of a resumed run, where it goes on; what a killed one wrote beyond it is hidden.
        warn: called with one line when it fails.
    """

    def __init__(self, folder: Path, step: int, warn: Callable[[str], None]) -> None:
        super().__init__("tensorboard", warn)
        self._guarded(lambda: self._open(folder / TENSORBOARD_DIR, step))

    def _open(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self.address = f"TensorBoard: tensorboard --logdir {folder}"

    def _log(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name not in ("step", "epoch", "time_s"):
                self._run.add_scalar(name, value, values["step"])
        self._run.flush()

    def _show(self, pictures: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        import numpy as np
        from PIL import Image

        for name, path in pictures.items():
            pixels_HWC = np.asarray(Image.open(path).convert("RGB"))
            self._run.add_image(name, pixels_HWC, position["step"], dataformats="HWC")

    def _finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        self._run.close()


def check_tensorboard() -> None:
    """Refuse ``--tensorboard`` if the package ``tensorboard`` is not installed.

    Raises:
        UsageError: it is; the line says how to install it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(f"--tensorboard needs TensorBoard: pip install '{REQUIREMENT}' (the extra [tensorboard])")
