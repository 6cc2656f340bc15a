"""Files of arrays: every form that is read, and one line for every other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.datamodules.conftest import fault, load, pixels

TRAIN, TEST = np.array([0, 1, 2, 0, 1, 2, 2, 0]), np.array([2, 0, 1])
Contents = dict[str, Any]


def contents(shape: tuple[int, ...] = (6, 5, 3)) -> Contents:
    return {
        "x_train": pixels(0, (8, *shape)), "y_train": TRAIN, "x_test": pixels(1, (3, *shape)), "y_test": TEST,
    }  # fmt: skip


def write_npz(path: Path, arrays: Contents) -> Path:
    np.savez(path / "x.npz", **arrays)
    return path / "x.npz"


def write_pt(path: Path, arrays: Contents) -> Path:
    values = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in arrays.items()
    }
    torch.save(values, path / "x.pt")
    return path / "x.pt"


BOTH = pytest.mark.parametrize("write", [write_npz, write_pt], ids=["npz", "pt"])
Write = Callable[[Path, Contents], Path]


@BOTH
def test_images_labels_and_classes_are_those_of_the_file(write: Write, tmp_path: Path) -> None:
    arrays = contents()
    splits = load("arrays", write(tmp_path, arrays))
    assert torch.equal(splits.train.images_PHWC, torch.from_numpy(arrays["x_train"]))
    assert torch.equal(splits.test.images_PHWC, torch.from_numpy(arrays["x_test"]))
    assert splits.train.labels_P.tolist() == TRAIN.tolist() and splits.test.labels_P.tolist() == TEST.tolist()
    assert splits.train.labels_P.dtype == torch.int64
    spec = splits.spec
    assert (spec.name, spec.class_names) == ("arrays", ("0", "1", "2"))
    assert (spec.num_channels, spec.height, spec.width) == (3, 6, 5)


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_first(write: Write, channels: int, tmp_path: Path) -> None:
    last = contents((6, 5, channels))
    first = {name: array.transpose(0, 3, 1, 2) if name[0] == "x" else array for name, array in last.items()}
    splits = load("arrays", write(tmp_path, first))
    assert torch.equal(splits.train.images_PHWC, torch.from_numpy(last["x_train"]))
    assert splits.train.images_PHWC.is_contiguous()


def test_images_without_a_channel_axis_are_grey(tmp_path: Path) -> None:
    arrays = contents((6, 5))
    splits = load("arrays", write_npz(tmp_path, arrays))
    assert splits.train.images_PHWC.shape == (8, 6, 5, 1) and splits.spec.num_channels == 1
    assert torch.equal(splits.train.images_PHWC[..., 0], torch.from_numpy(arrays["x_train"]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_levels_that_were_scaled_to_floats_come_back_exactly(dtype: type, tmp_path: Path) -> None:
    arrays = contents()
    scaled = arrays | {name: (arrays[name] / 255).astype(dtype) for name in ("x_train", "x_test")}
    splits = load("arrays", write_npz(tmp_path, scaled))  # and nothing is said
    assert torch.equal(splits.train.images_PHWC, torch.from_numpy(arrays["x_train"]))


def test_other_floats_are_rounded_and_one_line_says_so(tmp_path: Path) -> None:
    arrays, lines = contents(), []
    arrays["x_train"] = np.full((8, 6, 5, 3), 0.5005, np.float32)  # level 127.6
    splits = load("arrays", write_npz(tmp_path, arrays), lines)
    assert (splits.train.images_PHWC == 128).all()
    assert lines == ["x_train: pixels are rounded to 256 levels"]


def test_many_floats_are_rounded_in_parts(tmp_path: Path) -> None:
    arrays = contents((2, 2, 1))
    levels = np.arange(2500) % 256
    arrays["x_train"] = np.broadcast_to((levels / 255).astype(np.float32)[:, None, None, None], (2500, 2, 2, 1))
    arrays["y_train"] = np.arange(2500) % 3
    assert load("arrays", write_npz(tmp_path, arrays)).train.images_PHWC[:, 1, 1, 0].tolist() == levels.tolist()


@BOTH
def test_classes_can_be_named(write: Write, tmp_path: Path) -> None:
    names = ["ant", "bee", "cow"]
    given = np.array(names) if write is write_npz else names
    assert load("arrays", write(tmp_path, contents() | {"class_names": given})).spec.class_names == tuple(names)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint16])
def test_labels_of_any_whole_type(dtype: type, tmp_path: Path) -> None:
    splits = load("arrays", write_npz(tmp_path, contents() | {"y_train": TRAIN.astype(dtype)}))
    assert splits.train.labels_P.tolist() == TRAIN.tolist() and splits.train.labels_P.dtype == torch.int64


def test_sizes_labels_and_statistics_work_as_with_other_sets(tmp_path: Path) -> None:
    path = write_npz(tmp_path, contents())
    splits = load("arrays", path, train_size=3, val_size=3, normalization="unit_gaussian")
    assert splits.val is not None
    assert sorted(splits.val.labels_P.tolist()) == [0, 1, 2] and sorted(splits.train.labels_P.tolist()) == [0, 1, 2]
    scaled = splits.train.images_PHWC.double() / 255
    assert splits.spec.mean == pytest.approx(scaled.mean((0, 1, 2)).tolist(), abs=1e-12)


def nan() -> np.ndarray:
    images = np.zeros((8, 6, 5, 3), np.float32)
    images[3, 2, 1, 0] = np.nan
    return images


FAULTS: dict[str, tuple[Contents, str]] = {
    "shape": ({"x_train": np.zeros((8, 6, 5, 4), np.uint8)}, "x_train has shape 8 x 6 x 5 x 4; it must be P x H x W"),
    "flat": ({"x_test": np.zeros((3, 90), np.uint8)}, "x_test has shape 3 x 90; it must be P x H x W x C"),
    "unclear": ({"x_train": np.zeros((8, 3, 5, 3), np.uint8)}, "of which it cannot be told where the channels are"),
    "dtype": ({"x_train": np.zeros((8, 6, 5, 3), np.int32)}, "x_train has dtype int32; it must be uint8, or floats in"),
    "text": ({"x_train": np.full((8, 6, 5, 3), "a")}, "x_train has dtype <U1; it must be numbers"),
    "range": ({"x_train": np.full((8, 6, 5, 3), 255.0)}, "x_train has values from 255 to 255; floats must lie in"),
    "negative": ({"x_test": np.full((3, 6, 5, 3), -0.5)}, "x_test has values from -0.5 to -0.5; floats must lie in"),
    "nan": ({"x_train": nan()}, "x_train has values from nan to nan; floats must lie in [0, 1]"),
    "sizes": ({"x_test": np.zeros((3, 4, 5, 3), np.uint8)}, "x_train has images of 6 x 5 x 3 and x_test of 4 x 5 x 3"),
    "channels": ({"x_test": np.zeros((3, 6, 5), np.uint8)}, "x_train has images of 6 x 5 x 3 and x_test of 6 x 5 x 1"),
    "lengths": ({"y_train": TRAIN[:7]}, "x_train has 8 images and y_train 7 labels"),
    "no images": ({"x_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": TEST[:0]}, "x_test has no images"),
    "no floats": ({"x_test": np.zeros((0, 6, 5, 3)), "y_test": TEST[:0]}, "x_test has no images"),
    "from one": ({"y_train": TRAIN + 1}, "y_train has 3 different labels from 1 to 3; they must be 0 to 2"),
    "a gap": ({"y_train": TRAIN * 2}, "y_train has 3 different labels from 0 to 4; they must be 0 to 2, without gaps"),
    "huge": ({"y_train": TRAIN * 2**61}, "they must be 0 to 2, without gaps"),
    "below": ({"y_train": TRAIN - 1}, "y_train has 3 different labels from -1 to 1; they must be 0 to 2, without gaps"),
    "test labels": ({"y_test": TEST + 1}, "y_test has labels from 1 to 3, and y_train from 0 to 2"),
    "test below": ({"y_test": TEST - 1}, "y_test has labels from -1 to 1, and y_train from 0 to 2"),
    "one hot": ({"y_train": np.eye(3, dtype=int)[TRAIN]}, "y_train has shape 8 x 3; it must have one label for each"),
    "label dtype": ({"y_train": TRAIN.astype(float)}, "y_train has dtype float64; labels must be whole numbers"),
    "label bool": ({"y_train": TRAIN > 0}, "y_train has dtype bool; labels must be whole numbers"),
    "one class": ({"y_train": TRAIN * 0, "y_test": TEST * 0}, "one class only, 0; a classifier needs two or more"),
    "names": ({"class_names": np.array(["a", "b"])}, "must be 3 different words, one for each label, and has a, b"),
    "names twice": ({"class_names": np.array(["a", "b", "a"])}, "class_names must be 3 different words"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_arrays_that_cannot_be_meant_are_one_line(name: str, tmp_path: Path) -> None:
    change, expected = FAULTS[name]
    path = write_npz(tmp_path, contents() | change)
    message = fault("arrays", path)
    assert message.startswith(f"{path}: ") and expected in message


@BOTH
@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_an_array_that_is_missing_is_named_and_those_that_are_there(write: Write, key: str, tmp_path: Path) -> None:
    arrays = contents()
    arrays["images"] = arrays.pop(key)
    path = write(tmp_path, arrays)
    assert fault("arrays", path) == (
        f"{path}: no {key}; it must hold x_train, y_train, x_test, y_test, and holds {', '.join(arrays)}"
    )


@BOTH
def test_a_damaged_file_is_one_line(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path, contents())
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(pixels(0, (8, 6, 5, 3)).tobytes()) + 5] ^= 1
    for content in (whole[:-40], whole[:100], b"", b"no archive", bytes(changed)):
        path.write_bytes(content)
        assert fault("arrays", path).startswith(f"cannot read {path}: ")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@BOTH
def test_a_file_runs_no_code(write: Write, tmp_path: Path) -> None:
    trap: Any = Trap(tmp_path / "sprung")
    trap = np.array([trap] * 8, dtype=object) if write is write_npz else trap
    path = tmp_path / ("x.npz" if write is write_npz else "x.pt")
    (np.savez if write is write_npz else lambda at, **values: torch.save(values, at))(
        path, **contents() | {"y_train": trap}
    )
    assert fault("arrays", path).startswith(f"cannot read {path}: ")
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_dictionary_of_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "x.pt")
    assert fault("arrays", tmp_path / "x.pt").endswith("it holds a list, and must hold a dictionary")
    torch.save(contents() | {"x_train": [1, 2], "y_train": torch.tensor(TRAIN)}, tmp_path / "x.pt")
    assert "it is damaged, or holds more than a dictionary of tensors" in fault("arrays", tmp_path / "x.pt")
    write_pt(tmp_path, contents() | {"x_train": [1, 2]})
    assert fault("arrays", tmp_path / "x.pt").endswith("x_train is a list, and must be a tensor")
    np.save(tmp_path / "x.npy", TRAIN)
    os.rename(tmp_path / "x.npy", tmp_path / "x.npz")
    assert fault("arrays", tmp_path / "x.npz").startswith(f"cannot read {tmp_path / 'x.npz'}: it is no archive")


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    message = fault("arrays", tmp_path / "x.npz")
    assert message.startswith(f"data set arrays not found: no such file (looked in {tmp_path / 'x.npz'})")
    assert "--data_dir FILE" in message and "--dataset digits" in message and "x_train" in message
    assert "it is a folder, which --dataset folder may read" in fault("arrays", tmp_path)
    (tmp_path / "x.csv").touch()
    assert fault("arrays", tmp_path / "x.csv") == f"{tmp_path / 'x.csv'}: --dataset arrays reads .npz and .pt files"
