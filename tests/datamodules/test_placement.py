"""Batches read ahead from a file, or from the host, have the bits of those from images that are on the device."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from datamodules import base, cache, measure, placement
from datamodules.base import ImageSet
from datamodules.curriculum import Curriculum
from datamodules.feed import Feed, evaluation_batch
from datamodules.placement import Placement, place, resident
from datamodules.stored import Stored
from schemas import DataArgs
from tests.datamodules.test_curriculum import RANKING_P
from tests.datamodules.test_feed import CPU, CROP_FLIP, SETTINGS, make_images, make_spec
from utils import UserError

GPU = torch.device("cuda:0")  # nothing here needs one
GIB = 2**30


def stored(path: Path, images: ImageSet) -> ImageSet:
    """The same images in a file."""
    array = images.images_PHWC.numpy()
    pixels = cache.write(path / "x.npy", array.shape, lambda put: [put(i, array[i]) for i in range(len(array))])
    return ImageSet(pixels, images.labels_P)


def check_same(one: Feed, other: Feed, places: list[tuple[int, int]]) -> None:
    assert one.num_steps == other.num_steps
    for epoch, step in places:
        pair = one.batch(epoch, step), other.batch(epoch, step)
        for mine, theirs in zip(pair[0][:3], pair[1][:3], strict=True):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), (epoch, step)
        assert pair[0].x_BCHW.stride() == pair[1].x_BCHW.stride()


ALL = [(epoch, step) for epoch in range(3) for step in range(7)]
JUMPS = [(2, 6), (0, 3), (2, 0), (2, 1), (2, 2), (2, 1), (1, 5), (0, 0), (1, 4)]


@pytest.mark.parametrize("places", [ALL, JUMPS], ids=["in order", "jumping"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_file_gives_the_bits_of_memory(
    settings: dict[str, bool], channels: int, places: list[tuple[int, int]], tmp_path: Path
) -> None:
    images = make_images(channels)
    feeds = [
        Feed(each, make_spec(images), 5, CPU, augment=DataArgs(**settings), seed=3, two_views=True)
        for each in (images, stored(tmp_path, images))
    ]
    check_same(*feeds, places)


def test_batches_that_are_not_wanted_any_more_are_dropped(tmp_path: Path) -> None:
    images = make_images()
    feed = Feed(stored(tmp_path, images), make_spec(images), 5, CPU, augment=DataArgs(), seed=3)
    for epoch, step in JUMPS:
        feed.batch(epoch, step)
        assert len(feed._ahead._waiting) == 2


def test_a_part_of_a_file_gives_the_bits_of_that_part(tmp_path: Path) -> None:
    images, chosen_P = make_images(), torch.tensor([30, 2, 3, 4, 5, 36, 0, 7, 6, 9, 11, 12])
    feeds = [
        Feed(each.select(chosen_P), make_spec(images), 5, CPU, augment=DataArgs(**CROP_FLIP), seed=3)
        for each in (images, stored(tmp_path, images))
    ]
    check_same(*feeds, [(epoch, step) for epoch in range(2) for step in range(2)])


def test_a_curriculum_of_a_file_gives_the_same_bits(tmp_path: Path) -> None:
    images, curriculum = make_images(), Curriculum(RANKING_P, start=0.2, num_epochs=2)
    feeds = [
        Feed(each, make_spec(images), 5, CPU, augment=DataArgs(**CROP_FLIP), seed=3, curriculum=curriculum)
        for each in (images, stored(tmp_path, images))
    ]
    check_same(*feeds, ALL)


def test_evaluation_and_a_sample_of_a_file_have_the_same_bits(tmp_path: Path) -> None:
    images = make_images()
    one, other = (Feed(each, make_spec(images), 10, CPU) for each in (images, stored(tmp_path, images)))
    check_same(one, other, [(epoch, step) for epoch in range(2) for step in range(4)])
    for count in (4, 99):
        for mine, theirs in zip(one.sample(count)[:2], other.sample(count)[:2], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("augment", [DataArgs(**CROP_FLIP), None], ids=["training", "evaluation"])
def test_no_copy_of_the_set_is_made_and_two_batches_are_read_ahead(
    augment: DataArgs | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, seen, enough = stored(tmp_path, make_images()), [], threading.Semaphore(0)
    real = Stored.read

    def read(self: Stored, index_B: torch.Tensor, out_BHWC: torch.Tensor) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), index_B.tolist()))
        real(self, index_B, out_BHWC)
        enough.release()

    monkeypatch.setattr(Stored, "read", read)
    feed = Feed(images, make_spec(images), 10, CPU, augment=augment, seed=3)
    assert feed._pixels_PHWC is None and seen == []
    for step in range(feed.num_steps):
        feed.batch(0, step)
        for _ in range(3 if step == 0 else 1):
            assert enough.acquire(timeout=30)
    order = [seen[place][1] for place in range(len(seen))]
    assert not any(is_main for is_main, _ in seen)
    assert len(order) == feed.num_steps + 2  # none twice, and two of the next epoch
    following = [feed._positions((1, step)).tolist() for step in range(2)]
    assert order == [feed._positions((0, step)).tolist() for step in range(feed.num_steps)] + following


def test_a_file_that_cannot_be_read_any_more_is_one_line(tmp_path: Path) -> None:
    images = stored(tmp_path, make_images())
    feed = Feed(images, make_spec(images), 5, CPU, augment=DataArgs())
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read .*x\.npy: it has become shorter"):
        feed.batch(0, 0)


def test_reading_whole_runs_of_neighbours_and_single_images(tmp_path: Path) -> None:
    images = make_images()
    pixels = stored(tmp_path, images).images_PHWC
    assert isinstance(pixels, Stored) and pixels.shape == images.images_PHWC.shape
    for index in (slice(None), slice(3, 9), slice(0, 0), 5, -1, torch.tensor([4, 5, 6, 6, 0, 36, 35])):
        assert torch.equal(pixels[index], images.images_PHWC[index])
    one_P, two_P = torch.tensor([9, 3, 30, 4]), torch.tensor([2, 0, 3])
    assert torch.equal(pixels.select(one_P).select(two_P)[:], images.images_PHWC[one_P][two_P])
    for part, expected in zip(pixels.split((30, 7)), images.images_PHWC.split((30, 7)), strict=True):
        assert torch.equal(part[:], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_do_not_depend_on_the_parts_that_are_read(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_images(channels)
    expected = measure(images)
    monkeypatch.setattr(base, "_CHUNK_BYTES", 3 * 14 * 11 * channels + 1)  # three images
    in_file = stored(tmp_path, images)
    assert [len(chunk) for chunk in in_file.chunks()] == [3] * 12 + [1]
    assert measure(images) == expected == measure(in_file)
    scaled = images.images_PHWC.double() / 255
    assert expected[0] == pytest.approx(scaled.mean((0, 1, 2)).tolist(), abs=1e-12)
    assert expected[1] == pytest.approx(scaled.std((0, 1, 2), correction=0).tolist(), abs=1e-12)


def test_what_is_put_on_a_device_in_parts_is_the_padded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images()
    monkeypatch.setattr(base, "_CHUNK_BYTES", 2000)
    for each in (images, stored(tmp_path, images)):
        expected = torch.nn.functional.pad(images.images_PHWC, (0, 0, 4, 4, 4, 4))
        assert torch.equal(resident(each, CPU, 4), expected)
        assert torch.equal(resident(each, CPU, 0), images.images_PHWC)
    assert resident(images, CPU, 0).data_ptr() == images.images_PHWC.data_ptr()  # no second copy


def test_images_are_on_a_gpu_where_they_fit_beside_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "device_memory", lambda device: (60 * GIB, 80 * GIB))
    in_memory = make_images()  # 37 of 14 x 11 x 3
    in_file = stored(tmp_path, in_memory)
    for images, where in ((in_memory, "in the machine's memory"), (in_file, "in the image cache")):
        assert place(images, GPU, 40 * GIB) == Placement(True, "16.7 KiB on the GPU")
        is_resident, words = place(images, GPU, 40 * GIB + 1)
        assert not is_resident
        assert words == (
            f"16.7 KiB {where}, gathered on the host a batch ahead, since they do not fit: 60.0 GiB are free on the "
            "GPU, and a reserve of 20.0 GiB is for training"
        )
    assert place(in_memory, CPU, 40 * GIB) == Placement(True, "")
    assert place(in_file, CPU, 1) == Placement(False, f"16.7 KiB in {tmp_path / 'x.npy'}, read a batch ahead")


@pytest.mark.parametrize("settings", SETTINGS[-2:])
def test_images_in_memory_that_do_not_fit_a_device_give_the_same_bits(
    settings: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_images()

    def feed() -> Feed:
        return Feed(images, make_spec(images), 5, CPU, augment=DataArgs(**settings), seed=3, two_views=True)

    there = feed()
    monkeypatch.setattr("datamodules.feed.place", lambda *_: Placement(False, ""))
    assert feed()._pixels_PHWC is None
    check_same(there, feed(), ALL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_images_that_do_not_fit_a_gpu_give_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_images()
    settings, source = SETTINGS[-1], images if kind == "memory" else stored(tmp_path, images)

    def feed() -> Feed:
        return Feed(source, make_spec(images), 5, GPU, augment=DataArgs(**settings), seed=3, two_views=True)

    there = feed()
    assert there.placement.is_resident
    monkeypatch.setattr(placement, "device_memory", lambda device: (0, GIB))
    assert not feed().placement.is_resident
    check_same(there, feed(), ALL)


def test_larger_images_are_evaluated_in_smaller_batches() -> None:
    sizes = [(28, 28, 500), (32, 32, 500), (64, 64, 125), (224, 224, 10), (4000, 4000, 1)]
    for height, width, expected in sizes:
        spec = make_spec(ImageSet(torch.empty(1, height, width, 1, dtype=torch.uint8), torch.zeros(1)))
        assert evaluation_batch(spec) == expected
