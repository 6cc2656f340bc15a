"""Contrast of brightness and colours: every block but the last also learns which of them belong to one image.

Paper:
    Tian, Krishnan, Isola 2019, "Contrastive Multiview Coding", arXiv 1906.05849.

Signal:
    Beside the labelled images the blocks see two parts of each: its brightness, and what its channels differ from that.
    s_i is `objectives.contrastive.cross_view` with ``--cmc_temperature``, of projections of the block's outputs on both
    parts, before its pool: brightness finds its colours among those of the batch, and colours their brightness.
    ``--ssl --pred_loss_weight 0 --ssl_loss_weight 0 --cmc_loss_weight 1`` is this contrast alone.

Cost:
    Three times the images, two heads of two linear layers for each block, and batch x batch numbers.

Deviations:
    1. One network sees both parts, and the whole image; the paper has a network for each part and joins what they find.
       Each part has a projection of its own here.
    2. Brightness and the differences to it are linear in the pixels (ITU-R BT.601); the paper splits L from ab of Lab.
    3. Negatives are the batch's; the paper keeps thousands from earlier batches.
    4. Local, and together with other losses; the paper trains end to end, then a linear classifier (``evaluate RUN
       --linear``).

Reference numbers:
    From the abstract: contrast beats predicting one view from the other, which is ``--ssl_task colourise`` here.
"""

from __future__ import annotations

from torch import Tensor, nn

from datamodules.base import Batch
from heads.projection import projection
from model import Shape
from objectives.contrastive import cross_view
from sections.tasks.cmc import CmcArgs
from tasks._colour import ColourTask

LUMINANCE, CHROMINANCE = "luminance", "chrominance"  # names the parts in a batch


class PartContrast(ColourTask):
    """Pull both parts of one image together in projection space, and apart from the parts of other images."""

    def build_head(self, shape: Shape) -> nn.Module:
        """A projection for each part."""
        return nn.ModuleDict({name: projection(shape) for name in (LUMINANCE, CHROMINANCE)})

    def prepare(self, batch: Batch) -> Batch:
        """Add both parts of every labelled image."""
        luminance_BCHW, chrominance_BCHW = self.in_parts(batch)
        return batch.with_images(LUMINANCE, luminance_BCHW).with_images(CHROMINANCE, chrominance_BCHW)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Contrast in both directions."""
        heads = self.head(index)
        assert isinstance(heads, nn.ModuleDict)
        first_BD, second_BD = (heads[name](batch.part(features_BCHW, name)) for name in (LUMINANCE, CHROMINANCE))
        return cross_view(first_BD, second_BD, self.args.group(CmcArgs).cmc_temperature)
