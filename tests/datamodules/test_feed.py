"""Batches equal what torchvision's own functions make of the same images and the same random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as reference

from consts import CROP_PADDING
from datamodules.augment import Draws
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed, epoch_order
from schemas import DataArgs
from utils import UsageError

CPU = torch.device("cpu")
HEIGHT, WIDTH, COUNT = 14, 11, 37  # not square: an exchange of rows and columns shows
CROP_FLIP = {"random_crop": True, "random_horizontal_flip": True}
SETTINGS = [
    {"random_crop": True, "random_horizontal_flip": False},
    {"random_crop": False, "random_horizontal_flip": True},
    {"random_crop": False, "random_horizontal_flip": False},
    {"random_resized_crop": True, "random_horizontal_flip": False},
    {"random_crop": False, "random_horizontal_flip": False, "random_erasing": True},
    {**CROP_FLIP, "random_erasing": True},
    {"random_resized_crop": True, "random_horizontal_flip": True, "random_erasing": True},
]


def make_images(channels: int = 3, count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> ImageSet:
    generator = torch.Generator().manual_seed(channels)
    pixels = torch.randint(1, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(count))  # labels name the image


def make_spec(images: ImageSet, mean: float = 0.45, std: float = 0.2) -> DataSpec:
    _, height, width, channels = images.images_PHWC.shape
    means = tuple(mean + 0.02 * channel for channel in range(channels))
    return DataSpec("cifar10", channels, height, width, tuple("ab"), means, (std,) * channels)


def make_feed(settings: dict[str, bool], channels: int = 3, *, batch_size: int = 5, seed: int = 3) -> Feed:
    images = make_images(channels)
    return Feed(images, make_spec(images), batch_size, CPU, augment=DataArgs(**settings), seed=seed)


def by_torchvision(image_HWC: Tensor, draws: Draws, position: int, settings: dict[str, bool], spec: DataSpec) -> Tensor:
    """One image, treated one step at a time, as the per-sample pipeline does."""
    x_CHW = image_HWC.permute(2, 0, 1)
    top, left = draws.corner_P2[position].tolist()
    if settings.get("random_crop"):
        x_CHW = reference.crop(reference.pad(x_CHW, CROP_PADDING), top, left, spec.height, spec.width)
    x_CHW = x_CHW.float() / 255
    if settings.get("random_resized_crop"):
        side = int(draws.side_P[position])
        x_CHW = reference.resized_crop(x_CHW, top, left, side, side, [spec.height, spec.width])
    if draws.flip_P[position]:
        x_CHW = reference.hflip(x_CHW)
    if draws.erase_P4 is not None:
        x_CHW = reference.erase(x_CHW, *draws.erase_P4[position].tolist(), v=torch.zeros(()))
    return reference.normalize(x_CHW, spec.mean, spec.std)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda settings: "+".join(k for k, on in settings.items() if on) or "none"
)
def test_batches_equal_torchvision(settings: dict[str, bool], channels: int) -> None:
    images = make_images(channels)
    spec, feed = make_spec(images), make_feed(settings, channels)
    order, draws = epoch_order(3, 1, COUNT), feed.draws(1)
    for step in range(feed.num_steps):
        x_BCHW, y_B = feed.batch(1, step)[:2]
        for row in range(5):
            position = step * 5 + row
            expected = by_torchvision(images.images_PHWC[order[position]], draws, position, settings, spec)
            assert y_B[row] == order[position]
            torch.testing.assert_close(x_BCHW[row], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_survive_crop_and_flip_exactly(channels: int) -> None:
    images = make_images(channels)
    spec = make_spec(images)
    plain = DataSpec(*(*vars(spec).values(),)[:5], (0.0,) * channels, (1 / 255,) * channels)  # x is the level itself
    feed = Feed(images, plain, COUNT, CPU, augment=DataArgs(**CROP_FLIP, random_erasing=True), seed=3)
    order, draws = epoch_order(3, 0, COUNT), feed.draws(0)
    x_BCHW = feed.batch(0, 0).x_BCHW
    for position in range(COUNT):
        image = images.images_PHWC[order[position]].permute(2, 0, 1)
        top, left = draws.corner_P2[position].tolist()
        image = reference.crop(reference.pad(image, CROP_PADDING), top, left, HEIGHT, WIDTH)
        image = reference.hflip(image) if draws.flip_P[position] else image
        image = reference.erase(image, *draws.erase_P4[position].tolist(), v=torch.zeros((), dtype=torch.uint8))
        torch.testing.assert_close(x_BCHW[position], image.float(), rtol=0, atol=0)


def test_evaluation_shows_every_image_once_and_in_order() -> None:
    images = make_images()
    spec, feed = make_spec(images), Feed(images, make_spec(images), 10, CPU)
    batches = [feed.batch(epoch=0, step=step) for step in range(feed.num_steps)]
    assert (feed.num_steps, feed.num_images, len(batches[-1].y_B)) == (4, COUNT, COUNT % 10)
    assert torch.equal(torch.cat([batch.y_B for batch in batches]), torch.arange(COUNT))
    x_PCHW = torch.cat([batch.x_BCHW for batch in batches])
    expected = reference.normalize(images.images_PHWC.permute(0, 3, 1, 2).float() / 255, spec.mean, spec.std)
    torch.testing.assert_close(x_PCHW, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmented", [True, False])
def test_batches_are_float32_in_channels_last(channels: int, augmented: bool) -> None:
    images = make_images(channels)
    feed = Feed(images, make_spec(images), 4, CPU, augment=DataArgs(**CROP_FLIP) if augmented else None)
    x_BCHW, y_B = feed.batch(0, 0)[:2]
    assert x_BCHW.dtype == torch.float32 and y_B.dtype == torch.int64
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert x_BCHW.stride() == (HEIGHT * WIDTH * channels, 1, WIDTH * channels, channels)
    if channels > 1:  # one channel is both layouts at once, and torch may choose
        conv = nn.Conv2d(channels, 6, 3).to(memory_format=torch.channels_last)
        assert conv(x_BCHW).is_contiguous(memory_format=torch.channels_last)


def test_training_drops_the_last_partial_batch_and_repeats_no_image() -> None:
    feed = make_feed(CROP_FLIP, batch_size=5)
    labels = torch.cat([feed.batch(0, step).y_B for step in range(feed.num_steps)])
    assert (feed.num_steps, feed.num_images) == (7, 35)
    assert len(labels) == len(set(labels.tolist())) == 35


@pytest.mark.parametrize("settings", SETTINGS[-2:])
def test_random_access_equals_sequential_access(settings: dict[str, bool]) -> None:
    feed = make_feed(settings)
    sequential = {(epoch, step): feed.batch(epoch, step) for epoch in range(3) for step in range(feed.num_steps)}
    jumping = make_feed(settings)
    for epoch, step in [(2, 6), (0, 3), (2, 0), (1, 5), (0, 0), (1, 4)]:
        for got, expected in zip(jumping.batch(epoch, step)[:2], sequential[epoch, step][:2], strict=True):
            assert torch.equal(got, expected)


def test_batches_ignore_the_global_generator_and_leave_it_alone() -> None:
    torch.manual_seed(1)
    first = make_feed(SETTINGS[-1]).batch(4, 2)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = make_feed(SETTINGS[-1]).batch(4, 2)
    assert torch.equal(first.x_BCHW, second.x_BCHW)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_and_epoch_change_the_batch() -> None:
    first = make_feed(CROP_FLIP, seed=0)
    assert not torch.equal(first.batch(0, 0).x_BCHW, first.batch(1, 0).x_BCHW)
    assert not torch.equal(first.batch(0, 0).x_BCHW, make_feed(CROP_FLIP, seed=1).batch(0, 0).x_BCHW)


def test_images_are_never_changed() -> None:
    images = make_images()
    before = images.images_PHWC.clone()
    feed = Feed(images, make_spec(images), 7, CPU, augment=DataArgs(random_crop=False, random_erasing=True))
    for epoch in range(3):
        feed.batch(epoch, 0).x_BCHW.zero_()
    Feed(images, make_spec(images), 7, CPU).batch(0, 0).x_BCHW.zero_()
    assert torch.equal(images.images_PHWC, before)


def test_too_large_a_batch_and_a_step_outside_the_epoch_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--batch_size 38: there are 37 training images"):
        make_feed(CROP_FLIP, batch_size=38)
    feed = make_feed(CROP_FLIP)
    for step in (-1, 7):
        with pytest.raises(IndexError):
            feed.batch(0, step)


def test_long_positions_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    short = make_feed(CROP_FLIP).batch(0, 0).x_BCHW
    monkeypatch.setattr("datamodules.feed._INT32_END", 0)  # as for a set of more than 2^31 pixels
    asked, real = [], torch.Tensor.index_select

    def index_select(self: Tensor, dim: int, index: Tensor) -> Tensor:
        asked.append(index.dtype)
        return real(self, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", index_select)
    assert torch.equal(make_feed(CROP_FLIP).batch(0, 0).x_BCHW, short)
    assert asked == [torch.int64]


def test_a_sample_spreads_over_the_split() -> None:
    images = make_images()
    feed = Feed(images, make_spec(images), 10, CPU)
    batch = feed.sample(4)
    assert batch.y_B.tolist() == [0, 12, 24, 36]
    whole = torch.cat([feed.batch(0, step).x_BCHW for step in range(feed.num_steps)])
    assert torch.equal(batch.x_BCHW, whole[batch.y_B])
    assert len(feed.sample(99).y_B) == COUNT
    with pytest.raises(ValueError, match="no images as they are"):
        Feed(images, make_spec(images), 10, CPU, augment=DataArgs()).sample(4)


@pytest.mark.parametrize("settings", SETTINGS[-2:])
def test_a_second_view_is_another_augmentation_of_the_same_images(settings: dict[str, bool]) -> None:
    images = make_images()
    spec, alone = make_spec(images), make_feed(settings)
    both = Feed(images, spec, 5, CPU, augment=DataArgs(**settings), seed=3, two_views=True)
    draws, differ = alone.draws(1, "second "), 0
    for step in range(both.num_steps):
        batch, plain = both.batch(1, step), alone.batch(1, step)
        assert torch.equal(batch.x_BCHW, plain.x_BCHW) and torch.equal(batch.y_B, plain.y_B)
        assert plain.second_BCHW is None
        assert batch.second_BCHW.is_contiguous(memory_format=torch.channels_last)
        for row in range(5):
            image_HWC = images.images_PHWC[batch.y_B[row]]
            expected = by_torchvision(image_HWC, draws, step * 5 + row, settings, spec)
            torch.testing.assert_close(batch.second_BCHW[row], expected, rtol=0, atol=2e-6)
            differ += not torch.equal(batch.x_BCHW[row], batch.second_BCHW[row])
    assert differ > 30  # of 35
    again = Feed(images, spec, 5, CPU, augment=DataArgs(**settings), seed=3, two_views=True).batch(1, 6)
    assert torch.equal(again.second_BCHW, batch.second_BCHW)  # whatever was asked for before


def test_the_first_images_of_a_batch_keep_their_second_views() -> None:
    images = make_images()
    feed = Feed(images, make_spec(images), 5, CPU, augment=DataArgs(**CROP_FLIP), two_views=True)
    batch = feed.batch(0, 0)
    part = batch.first(2)
    assert [len(each) for each in part[:3]] == [2, 2, 2]
    assert torch.equal(part.second_BCHW, batch.second_BCHW[:2])
    assert make_feed(CROP_FLIP).batch(0, 0).first(2).second_BCHW is None
