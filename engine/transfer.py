"""Initial weights from another run: ``--init_from RUN``, for fine-tuning and for labels after pre-training without.

Only the numbers of its checkpoint are read, so that nothing of that run's code is needed, whatever rule trained it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from loguru import logger
from torch import Tensor

from consts import block_name
from engine.run import checkpoint
from engine.run.folder import RunFolder
from methods._base import Method
from model import Backbone
from utils import UserError

Weights = dict[str, Tensor]
_NETWORK = "backbone."  # begins the names of the network's weights in a method's


class Initial:
    """The weights of a run's best checkpoint, given to a network and then to the heads that its method makes.

    Args:
        path: the run folder.

    Raises:
        UserError: its best checkpoint cannot be read.
    """

    def __init__(self, path: Path) -> None:
        folder = RunFolder(path)
        try:
            self._weights: Weights = checkpoint.load(folder.checkpoints / checkpoint.BEST)["method"]
        except UserError as error:
            raise UserError(f"--init_from {path}: {error}") from None
        self._path, self._model = path, folder.summary().get("model", "its network")
        self._taken: list[str] = []

    def give_to_network(self, backbone: Backbone) -> None:
        """Let every block begin with the weights of that run's, and the classifier, if it is of the same shape.

        Raises:
            UserError: a block differs.
        """
        theirs = self._named(_NETWORK)
        for name, value in backbone.blocks.state_dict(prefix="blocks.").items():
            found = theirs.get(name)
            if found is None or found.shape != value.shape:
                there = "missing" if found is None else f"of shape {tuple(found.shape)}"
                index, _, inside = name.removeprefix("blocks.").partition(".")
                raise UserError(
                    f"--init_from {self._path}: {inside} of {block_name(int(index))} is {there} in that run, and of "
                    f"shape {tuple(value.shape)} here; blocks must be those of {self._model} without --num_modules"
                )
        self._taken = [f"{backbone.num_blocks} block{'s' * (backbone.num_blocks > 1)}"]
        self._taken += (
            ["classifier"] if self._fits(backbone.classifier.state_dict(prefix="classifier."), theirs) else []
        )
        wanted = tuple(f"{name}." for name in ("blocks", *self._taken[1:]))
        backbone.load_state_dict(
            {name: theirs[name] for name in backbone.state_dict() if name.startswith(wanted)}, strict=False
        )

    def give_to_heads(self, method: Method) -> None:
        """Let the heads that are of the same shapes begin with that run's weights too, and log what was taken."""
        parts: dict[str, Weights] = defaultdict(dict)
        for name, value in method.state_dict().items():
            if not name.startswith(_NETWORK):
                parts[".".join(name.split(".")[:2])][name] = value
        fitting = [part for part in parts.values() if self._fits(part, self._weights)]
        for part in fitting:
            method.load_state_dict({name: self._weights[name] for name in part}, strict=False)
        heads = [f"{len(fitting)} of {len(parts)} parts of the heads"] if parts else []
        fresh = [] if "classifier" in self._taken else ["; the classifier is fresh"]
        logger.info(f"Initial weights of {self._path} (best): {', '.join([*self._taken, *heads])}{''.join(fresh)}")

    def _named(self, prefix: str) -> Weights:
        return {name.removeprefix(prefix): each for name, each in self._weights.items() if name.startswith(prefix)}

    @staticmethod
    def _fits(own: Weights, theirs: Weights) -> bool:
        return all(name in theirs and theirs[name].shape == value.shape for name, value in own.items())
