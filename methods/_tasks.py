"""Which tasks the settings ask for, beside the loss of a local method."""

from __future__ import annotations

from collections.abc import Iterable

from datamodules.base import DataSpec
from methods._cpc import PredictiveCoding
from methods._restore import Colourisation, Inpainting
from methods._ssl import Reconstruction, Rotation, SslTask
from methods._supcon import SupervisedContrast
from methods._views import ViewContrast
from model import Backbone
from schemas import LocalArgs

SSL_TASKS: dict[str, type[SslTask]] = {
    "reconstruct": Reconstruction, "shift": Reconstruction, "rotate": Rotation, "inpaint": Inpainting,
    "colourise": Colourisation,
}  # fmt: skip


def build_tasks(
    args: LocalArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]
) -> tuple[SslTask | None, ...]:
    """The task of ``--ssl``, supervised contrast, the contrast of views and predictive coding; None without weight.

    Their heads are drawn in this order, so that those of the first are the same whatever comes with it.
    """
    chosen = (
        (SSL_TASKS[args.ssl_task], args.ssl_loss_weight if args.ssl else 0),
        (SupervisedContrast, args.supcon_loss_weight),
        (ViewContrast, args.simclr_loss_weight),
        (PredictiveCoding, args.cpc_loss_weight),
    )
    return tuple(task(args, backbone, spec, blocks) if weight > 0 else None for task, weight in chosen)
