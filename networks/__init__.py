"""Networks by the value of ``--model``: each becomes a `model.Backbone`, and no rule knows where it came from."""

from __future__ import annotations

from model import Backbone, InputSpec
from networks.table import build_from_table
from schemas import ModelArgs


def build_backbone(args: ModelArgs, spec: InputSpec, num_skipped_blocks: int = 0) -> Backbone:
    """The network that ``--model`` names, with its own initialisation.

    Of the first ``num_skipped_blocks`` blocks only the pools stay, so that the others see their usual resolution.

    Raises:
        UsageError: the network does not fit the images.
    """
    return build_from_table(args, spec, num_skipped_blocks)
