"""``--diagnostics``: further measurements on fixed images, which do not change the run."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

from consts import (
    ALIGNMENT,
    CKA,
    FEEDBACK,
    FILTERS,
    GRADIENT_RATIO,
    INSIDE,
    PROBE_ACCURACY,
    RECONSTRUCTIONS,
    SIGNAL,
    block_name,
    metric_name,
)
from datamodules.base import ImageSet, Splits
from datamodules.feed import Feed, evaluation_batch
from datamodules.split import at_most
from diagnostics.alignment import alignment
from diagnostics.confusion import confusion_matrix
from diagnostics.features import PROBE_SIDE, block_features, block_grams, gram_cka, labels, probe_accuracy
from diagnostics.filters import first_filters
from diagnostics.reconstructions import reconstruction_grids
from engine.devices import autocast
from engine.run.log import RunLog
from methods._base import Method
from networks import build_backbone
from schemas import Args

ALIGNMENT_IMAGES, PROBE_IMAGES, CKA_IMAGES = 256, 2000, 500  # at most
NUM_SHOWN = 8  # images in a grid of reconstructions


class Observers:
    """The diagnostics that a run asks for.

    They see the same class-balanced images in every epoch and every run of a data set: training images as they are,
    and for probes and CKA images that were not trained on, of the validation split where there is one.

    Args:
        args: the settings.
        splits: the data.
        device: where the run trains.
    """

    def __init__(self, args: Args, splits: Splits, device: torch.device) -> None:
        self._args, self._spec, self._device = args, splits.spec, device
        self._chosen = frozenset(args.run.diagnostics)
        held_out = splits.test if splits.val is None else splits.val
        if "alignment" in self._chosen:
            self._alignment = self._feed(splits.train, ALIGNMENT_IMAGES, ALIGNMENT_IMAGES)
        if "probes" in self._chosen:
            self._fit, self._held = (self._feed(images, PROBE_IMAGES) for images in (splits.train, held_out))
        if "cka" in self._chosen:
            self._cka = self._feed(held_out, CKA_IMAGES)

    def _feed(self, images: ImageSet, count: int, batch_size: int | None = None) -> Feed:
        chosen, size = at_most(images, self._spec.num_classes, count), batch_size or evaluation_batch(self._spec)
        return Feed(chosen, self._spec, size, self._device)

    def measure(self, method: Method) -> dict[str, float]:
        """Metrics by full name; in float32, whatever the run computes in."""
        values: dict[str, float] = {}
        if "alignment" in self._chosen:
            values |= self._agreements(method)
        if "probes" in self._chosen:
            values |= self._probes(method)
        if "cka" in self._chosen:
            grams = block_grams(method, self._cka)
            for one, other in combinations(range(len(grams)), 2):
                values[metric_name(INSIDE, CKA + block_name(other), one)] = gram_cka(grams[one], grams[other])
        return values

    def _agreements(self, method: Method) -> dict[str, float]:
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            plain = build_backbone(self._args.model, self._spec, self._args.num_skipped_blocks)
            plain = method.arrange(plain, self._spec)  # its blocks joined to modules as the method's
        plain = plain.to(self._device).to(memory_format=torch.channels_last)
        found = alignment(method, plain, self._alignment.batch(0, 0))
        values = {}
        for index, each in found.gradients.items():
            values[metric_name(INSIDE, ALIGNMENT, index)] = each.cosine
            values[metric_name(INSIDE, GRADIENT_RATIO, index)] = each.ratio
        for names, agreements in ((SIGNAL, found.signals), (FEEDBACK, found.feedback)):
            for index, each in agreements.items():
                values |= {metric_name(INSIDE, name, index): value for name, value in zip(names, each, strict=True)}
        return values

    def _probes(self, method: Method) -> dict[str, float]:
        fit, held = (block_features(method, feed, PROBE_SIDE) for feed in (self._fit, self._held))
        fit_y_P, held_y_P = labels(self._fit), labels(self._held)
        return {
            metric_name(INSIDE, PROBE_ACCURACY, index): probe_accuracy(
                fit[index], fit_y_P, held[index], held_y_P, self._spec.num_classes
            )
            for index in range(len(fit))
        }

    def show(self, method: Method, feed: Feed, log: RunLog, position: dict[str, Any]) -> None:
        """Log what the method's decoders draw of the first images of ``feed``, and the pictures that were asked for.

        Args:
            method: what is trained.
            feed: a split that is not trained on.
            log: where they go.
            position: the step and epoch they belong to.
        """
        batch = feed.sample(NUM_SHOWN)
        with autocast(batch.x_BCHW.device, self._args.run.precision):
            grids = reconstruction_grids(method, batch, self._spec)
            confusion_NN = confusion_matrix(method, feed) if "confusion" in self._chosen else None
        pictures = {RECONSTRUCTIONS + block_name(index): grid for index, grid in grids.items()}
        if "filters" in self._chosen and (grid := first_filters(method.backbone)) is not None:
            pictures[FILTERS] = grid
        log.show(pictures, position)
        if confusion_NN is not None:
            log.show_confusion(confusion_NN.tolist(), self._spec.class_names, position)
