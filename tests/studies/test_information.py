"""What features tell: nothing, everything, and what lies between, where the answer is known."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from datamodules.base import Batch, ImageSet
from datamodules.feed import Feed
from diagnostics.features import block_features
from studies.information import Information, _build, estimate, frozen_features, label_entropy, num_steps, pixel_entropy
from tests.conftest import CLASSES, make_method, make_spec

DARK, LIGHT = 26, 230  # grey levels, one as probable as the other


def make_images(count: int, seed: int) -> ImageSet:
    """Pixels that no other pixel and no label tells anything of; as many images of every class."""
    generator = torch.Generator().manual_seed(seed)
    light_PHWC = torch.rand(count, 8, 8, 3, generator=generator) < 0.5
    return ImageSet(torch.where(light_PHWC, LIGHT, DARK).to(torch.uint8), torch.arange(count) % len(CLASSES))


FIT, HELD = make_images(300, 0), make_images(100, 1)


def constant(batch: Batch) -> Tensor:
    return torch.full((len(batch.y_B), 2, 4, 4), 0.7, dtype=torch.float64)


def one_hot(batch: Batch) -> Tensor:
    return functional.one_hot(batch.y_B, len(CLASSES)).double()[:, :, None, None]


def image(batch: Batch) -> Tensor:
    return batch.x_BCHW.double()


def measure(*features, epochs: int = 15, **words) -> list[Information]:
    places = [lambda batch, each=each: each(batch) for each in features]
    return estimate(
        lambda batch: [place(batch) for place in places], FIT, HELD, make_spec(), torch.device("cpu"), epochs, **words
    )


@pytest.fixture(scope="module")
def known() -> dict[str, Information]:
    return dict(zip(("constant", "one_hot", "image"), measure(constant, one_hot, image), strict=True))


def test_probes_lie_in_memory_as_the_maps_do() -> None:
    maps = [torch.zeros(2, 4, 8, 8).to(memory_format=torch.channels_last)]
    weights = [weight for probe in _build(maps, make_spec()) for weight in probe.parameters() if weight.dim() == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_constant_tells_nothing(known: dict[str, Information]) -> None:
    assert known["constant"].label_information == pytest.approx(0, abs=1e-12)
    assert known["constant"].accuracy == pytest.approx(100 / len(CLASSES))
    share = float((HELD.images_PHWC == LIGHT).double().mean())
    mean = (share * LIGHT + (1 - share) * DARK) / 255
    best = -(mean * math.log(mean) + (1 - mean) * math.log(1 - mean))  # of a picture of one grey
    assert known["constant"].reconstruction_error == pytest.approx(best, abs=0.01)


def test_a_code_of_the_label_tells_the_label_and_nothing_of_the_image(known: dict[str, Information]) -> None:
    assert known["one_hot"].label_information > 0.99 * math.log(len(CLASSES))
    assert known["one_hot"].accuracy == 100
    assert known["one_hot"].reconstruction_error == pytest.approx(known["constant"].reconstruction_error, abs=0.01)


def test_the_image_tells_itself_and_nothing_of_a_label_that_it_does_not_show(known: dict[str, Information]) -> None:
    floor, empty = pixel_entropy(HELD), known["constant"].reconstruction_error
    assert known["image"].reconstruction_error - floor < 0.2 * (empty - floor)  # after 60 steps
    assert known["image"].label_information < 0.1


def test_bounds_hold(known: dict[str, Information]) -> None:
    for found in known.values():
        assert found.reconstruction_error >= pixel_entropy(HELD)
        assert 0 <= found.label_information <= math.log(len(CLASSES))


def test_the_same_bits_every_time_whatever_is_measured_beside_it(known: dict[str, Information]) -> None:
    torch.rand(3)
    random, calls = torch.get_rng_state(), []
    assert measure(one_hot, advance=lambda: calls.append(1)) == [known["one_hot"]]
    assert torch.equal(torch.get_rng_state(), random)
    assert len(calls) == num_steps(FIT.num_images, 15)


def test_the_network_stays_as_it_was() -> None:
    method = make_method("dgl").float().eval()
    before = copy.deepcopy(method.state_dict())
    rows = estimate(lambda batch: frozen_features(method, batch), FIT, HELD, make_spec(), torch.device("cpu"), epochs=1)
    assert len(rows) == 2 + method.backbone.num_blocks
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_features_are_a_constant_the_image_and_the_evaluated_blocks() -> None:
    method, feed = make_method("dgl").float(), Feed(HELD, make_spec(), 100, torch.device("cpu"))
    blocks, batch = block_features(method, feed), feed.batch(0, 0)
    empty_BCHW, own_BCHW, *maps = frozen_features(method.eval(), batch)
    assert not empty_BCHW.any()
    assert torch.equal(own_BCHW, batch.x_BCHW)
    assert all(torch.equal(h_BCHW.flatten(1), h_PD) for h_BCHW, h_PD in zip(maps, blocks, strict=True))


def test_entropies_are_those_of_the_definition() -> None:
    assert label_entropy(torch.arange(20) % 5) == pytest.approx(math.log(5))
    assert label_entropy(torch.tensor([3, 3, 3, 0])) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    levels_PHWC = torch.arange(256, dtype=torch.uint8).view(4, 8, 8, 1)
    values = levels_PHWC.double() / 255
    expected = float(functional.binary_cross_entropy(values, values))
    assert pixel_entropy(ImageSet(levels_PHWC, torch.zeros(4).long())) == pytest.approx(expected)
