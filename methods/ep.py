"""Equilibrium propagation: the loss nudges the network's equilibrium, and blocks learn from how far it moves.

Paper:
    Scellier, Bengio 2017, "Equilibrium Propagation", arXiv 1602.05179; on the energy of predictive coding Scellier and
    others 2026, arXiv 2606.03584, which this is.

Signal:
    The energy ``E = sum_i |eps_i|^2 / 2 + beta loss`` is a sum over the images, with errors ``eps_i = s_i -
    f_i(s_{i-1})`` of the blocks' states; beta (``--nudge``) is in units of each image's own loss. Without beta the
    equilibrium is the forward pass, so that no free phase is needed. From there all errors are relaxed with
    ``--inference_steps`` moves of ``--inference_rate``, once for each sign of beta. ``--nudging``: the gradient is
    ``[dE/dw(beta) - dE/dw(-beta)] / (2 beta B)`` for ``centred``, ``dE/dw(beta) / (beta B)`` for ``one_sided``, and
    that with a sign drawn for every batch for ``random_sign``. So block i receives ``-eps_i / (beta B share)``,
    linearised at the nudged state below; the share ``1 - (1 - rate)^steps`` is the rule of scale of ``--pc``. All this
    is back-propagation up to beta, ``centred`` up to beta^2 (tested), for any number of moves. So parity with
    back-propagation at a small beta is no news: compare ``--diagnostics alignment``. ``--nudge 1`` with ``one_sided``
    is ``--pc`` with the same moves, bit for bit.

Cost:
    A forward pass, and for each sign of beta what ``--pc`` with as many steps takes beyond that. Measured on BasicCNN
    with 8 images of 32x32: 7 times the work of back-propagation with four moves and both signs. A move's graph is freed
    before the next one's: autograd holds 10.1 MiB, whatever their number, and 14.6 in back-propagation.

Deviations:
    1. As in ``--pc``: BatchNorm takes part, states are those of blocks, behind pool and dropout, and the classifier is
       the output layer as a whole.
    2. Signals are divided by the share, which is 1 at the equilibrium.
    3. In bf16 a block sees its input rounded to eight bits, in which a small nudge is lost: what is left is the
       back-propagation that a single move is. Give --precision fp32 where the nudge matters.
    4. The Hopfield form, with states that settle by themselves, is ``--hopfield``.

Reference numbers:
    ``--ep --dataset digits --batch_size 32``, one run each: BasicCNN 98.3 % after two epochs; VGGs after eight 98.9 %
    with ``centred`` and with ``one_sided``, 99.2 % with ``random_sign``, cosines to back-propagation above 0.99.
    Scellier 2026, ImageNet, VGG10: 13.23 % top-5 test error, back-propagation 12.2 %.
"""

from __future__ import annotations

from torch import Tensor

from datamodules.base import Batch
from methods._base import Traits
from methods._nudge import betas
from methods._relax import RelaxMethod
from sections.relaxation import Nudge
from sections.rules.ep import EpArgs


class EquilibriumPropagation(RelaxMethod):
    """Relaxes errors while a small weight beta of the loss, positive, negative or each in turn, nudges them."""

    TRAITS = Traits(isolation="none")
    args: EpArgs

    def nudges(self, batch: Batch) -> list[tuple[float | Tensor, float]]:
        """As ``--nudging`` says."""
        return betas(self.args.group(Nudge), batch)
