"""A file of arrays: ``x_train``, ``y_train``, ``x_test`` and ``y_test`` in an ``.npz`` or a ``.pt``."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Announce, ImageSet, MissingData, Source, check_classes
from schemas import DataArgs
from utils import UserError

_KEYS, _NAMES = ("x_train", "y_train", "x_test", "y_test"), "class_names"
_CHUNK = 1024  # images whose levels are rounded at a time
_LOST = 0.1  # of a level: what is rounded by less was a level, kept in a short float


def read(args: DataArgs, announce: Announce) -> Source:
    """The images and labels of the file ``--data_dir``.

    Images are (P, H, W, C), (P, C, H, W) or (P, H, W), of 1 or 3 channels, in uint8 or as floats in [0, 1], which are
    rounded to 256 levels. Labels are (P,), whole numbers from 0 without gaps. ``class_names``, which may be left out,
    has a word for each label.

    Raises:
        UserError: the file is missing or damaged, or does not hold these; the message names the array.
    """
    path = Path(args.data_dir).expanduser()
    found = _contents(path)
    try:
        train, test = (_image_set(found, split, announce) for split in ("train", "test"))
        one, two = (tuple(images.images_PHWC.shape[1:]) for images in (train, test))
        if one != two:
            raise ValueError(f"x_train has images of {_by(one)} and x_test of {_by(two)} (height x width x channels)")
        return Source(train, test, _class_names(found, path, train.labels_P, test.labels_P))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _contents(path: Path) -> dict[str, Any]:
    """What the file holds under the names that count.

    Raises:
        UserError: it is missing, cannot be read, or lacks an array.
    """
    readers = {".npz": _read_npz, ".pt": _read_pt}
    if not path.is_file():
        what = "it is a folder, which --dataset folder may read" if path.exists() else "no such file"
        raise MissingData(
            f"data set arrays not found: {what} (looked in {path.absolute()})",
            f"give --data_dir FILE, an .npz or .pt file with {', '.join(_KEYS)}, or use --dataset digits (needs no "
            "files)",
        )
    if path.suffix not in readers:
        raise UserError(f"{path}: --dataset arrays reads {' and '.join(readers)} files")
    try:
        return readers[path.suffix](path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"cannot read {path}: it is damaged, or holds more than a dictionary of tensors") from error
    except Exception as error:  # damage can surface as almost any error
        raise UserError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _read_npz(path: Path) -> dict[str, Any]:
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise ValueError("it is no archive of arrays")
    with opened as archive:
        return {key: archive[key] for key in _checked(path, archive.files)}


def _read_pt(path: Path) -> dict[str, Any]:
    if zipfile.is_zipfile(path):  # torch does not compare the checksums of what it reads
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"it is damaged in {damaged}")
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, and must hold a dictionary")
    return {key: found[key] for key in _checked(path, found)}


def _checked(path: Path, names: Collection[str]) -> list[str]:
    """Those of the names that are read."""
    for key in _KEYS:
        if key not in names:
            there = ", ".join(map(str, names)) or "nothing"
            raise UserError(f"{path}: no {key}; it must hold {', '.join(_KEYS)}, and holds {there}")
    return [*_KEYS, *({_NAMES} & set(names))]


def _image_set(found: dict[str, Any], split: str, announce: Announce) -> ImageSet:
    """Images and labels of a split.

    Raises:
        ValueError: they are not as they must be.
    """
    x, y = f"x_{split}", f"y_{split}"
    images_PHWC, labels_P = _images(x, found.pop(x), announce), _labels(y, found.pop(y))
    if len(images_PHWC) != len(labels_P):
        raise ValueError(f"{x} has {len(images_PHWC)} images and {y} {len(labels_P)} labels")
    if not len(labels_P):
        raise ValueError(f"{x} has no images")
    return ImageSet(images_PHWC, labels_P)


def _images(name: str, array: Any, announce: Announce) -> Tensor:
    images = _tensor(name, array)
    shape = tuple(images.shape)
    if len(shape) == 3:
        images = images[..., None]
    elif len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        raise ValueError(
            f"{name} has shape {_by(shape)}; it must be P x H x W x C, P x C x H x W or P x H x W, C 1 or 3"
        )
    elif {shape[1], shape[3]} <= {1, 3}:
        raise ValueError(f"{name} has shape {_by(shape)}, of which it cannot be told where the channels are")
    elif shape[3] not in (1, 3):
        images = images.permute(0, 2, 3, 1)
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise ValueError(f"{name} has dtype {_kind(images)}; it must be uint8, or floats in [0, 1]")
    return _levels(name, images, announce)


def _levels(name: str, images_PHWC: Tensor, announce: Announce) -> Tensor:
    """Floats in [0, 1] as uint8 levels."""
    levels_PHWC, lost = torch.empty(images_PHWC.shape, dtype=torch.uint8), 0.0
    for source, target in zip(images_PHWC.split(_CHUNK), levels_PHWC.split(_CHUNK), strict=True):
        low, high = (float(limit) for limit in source.aminmax()) if source.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):  # of NaN neither holds
            raise ValueError(f"{name} has values from {low:g} to {high:g}; floats must lie in [0, 1], or give uint8")
        exact = source.float() * 255
        target.copy_(exact.round())
        lost = max(lost, float((exact - target).abs().max()) if source.numel() else 0.0)
    if lost > _LOST:
        announce(f"{name}: pixels are rounded to 256 levels")
    return levels_PHWC


def _labels(name: str, array: Any) -> Tensor:
    labels = _tensor(name, array)
    if labels.dim() != 1:
        raise ValueError(f"{name} has shape {_by(labels.shape)}; it must have one label for each image")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {_kind(labels)}; labels must be whole numbers")
    return labels.long()


def _class_names(found: dict[str, Any], path: Path, train_P: Tensor, test_P: Tensor) -> tuple[str, ...]:
    """A name for each class; every one has training images."""
    known, tested = train_P.unique(), test_P.unique()
    count = len(known)
    if not torch.equal(known, torch.arange(count)):
        raise ValueError(
            f"y_train has {count} different labels from {int(known[0])} to {int(known[-1])}; they must be 0 to "
            f"{count - 1}, without gaps"
        )
    if int(tested[0]) < 0 or int(tested[-1]) >= count:
        raise ValueError(
            f"y_test has labels from {int(tested[0])} to {int(tested[-1])}, and y_train from 0 to {count - 1}"
        )
    names = tuple(map(str, found.get(_NAMES, range(count))))
    if len(set(names)) != len(names) or len(names) != count:
        raise ValueError(f"{_NAMES} must be {count} different words, one for each label, and has {', '.join(names)}")
    check_classes(names, path)
    return names


def _tensor(name: str, array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is a {type(array).__name__}, and must be a tensor")
    try:
        return torch.from_numpy(array)
    except TypeError:  # text, dates, records
        raise ValueError(f"{name} has dtype {array.dtype}; it must be numbers") from None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _by(shape: Collection[int]) -> str:
    return " x ".join(map(str, shape))
