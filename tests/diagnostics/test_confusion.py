"""Labels against guesses, against a loop."""

from __future__ import annotations

import torch

from datamodules.base import ImageSet
from datamodules.feed import Feed
from diagnostics.confusion import confusion_matrix
from tests.conftest import make_method, make_spec


def test_every_image_is_counted_once_at_its_label_and_guess() -> None:
    spec, generator = make_spec(), torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (37, 8, 8, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(spec.num_classes, (37,), generator=generator)
    feed = Feed(ImageSet(pixels, labels), spec, 5, torch.device("cpu"))
    method = make_method("dgl").float()
    with torch.no_grad():  # an untrained network guesses one class for all
        method.backbone.classifier[-1].bias -= method.eval()(feed.batch(0, 0).x_BCHW).mean(0)
    method.train()
    counts_NN = confusion_matrix(method, feed)
    assert method.training
    method.eval()
    expected = torch.zeros_like(counts_NN)
    for step in range(feed.num_steps):
        batch = feed.batch(0, step)
        for image_CHW, label in zip(batch.x_BCHW, batch.y_B, strict=True):
            expected[label, method(image_CHW[None]).argmax()] += 1
    assert torch.equal(counts_NN, expected) and counts_NN.sum() == 37
    assert (counts_NN.sum(0) > 0).sum() > 1  # else a transposed or constant matrix would pass
