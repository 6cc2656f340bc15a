"""CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and SVHN in the files that torchvision fetches.

torchvision compares the md5 of CIFAR's and SVHN's files whenever it reads them. Of MNIST and Fashion-MNIST it looks at
the names only, so a truncated file ends in an unreadable error and changed bytes in silence. These two are therefore
read here: header and length must be exactly right, and where the ``.gz`` is still there, which torchvision leaves, it
must have the published md5 and the extracted file the CRC-32 that the ``.gz`` records for its content.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import socket
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.base import Announce, ImageSet, MissingData, Source
from datamodules.parallel import held
from schemas import DataArgs
from utils import UserError

_TIMEOUT_S = 30.0  # torchvision sets none: behind a firewall that drops packets it would wait for ever
_IDX_COUNTS = {"train": 60_000, "t10k": 10_000}
_IDX_SIDE = 28  # pixels

Part = tuple[NDArray[np.uint8], Sequence[int], Sequence[str]]  # images (PHWC or PHW), labels, class names


def _read_cifar(cls: Any, root: Path, is_train: bool) -> Part:
    data = cls(root, train=is_train)
    return data.data, data.targets, data.classes


def _read_svhn(cls: Any, root: Path, is_train: bool) -> Part:
    data = cls(root, split="train" if is_train else "test")
    return data.data.transpose(0, 2, 3, 1), data.labels, tuple("0123456789")


def _read_mnist(cls: Any, root: Path, is_train: bool) -> Part:
    prefix, md5s = "train" if is_train else "t10k", dict(cls.resources)
    count, folder = _IDX_COUNTS[prefix], root / cls.__name__ / "raw"
    parts = []
    for kind, shape in (("images", (count, _IDX_SIDE, _IDX_SIDE)), ("labels", (count,))):
        name = f"{prefix}-{kind}-idx{len(shape)}-ubyte"
        parts.append(_read_idx(folder / name, shape, md5s[f"{name}.gz"]))
    return *parts, cls.classes


def _read_idx(path: Path, shape: tuple[int, ...], md5_of_gz: str) -> NDArray[np.uint8]:
    """The array of an idx file of bytes.

    Raises:
        UserError: the file does not hold an array of ``shape``, or is not what its ``.gz`` holds.
        FileNotFoundError: there is no such file.
    """
    content, archive = path.read_bytes(), path.with_name(f"{path.name}.gz")
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)  # 8 stands for unsigned bytes
    size, advice = len(header) + math.prod(shape), "delete it and give --download, or put a whole one there"
    if not content.startswith(header) or len(content) != size:
        holds = f"an idx file of {size} bytes with {'x'.join(map(str, shape))} values"
        raise UserError(f"{path} is damaged: its {len(content)} bytes are not {holds}; {advice}")
    if archive.exists():
        packed = archive.read_bytes()
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5_of_gz:
            raise UserError(f"{archive} is damaged: its md5 is not {md5_of_gz}; {advice}")
        if zlib.crc32(content) != int.from_bytes(packed[-8:-4], "little"):
            raise UserError(f"{path} is damaged: it is not what {archive.name} beside it holds; {advice}")
    return np.frombuffer(bytearray(content), np.uint8, offset=len(header)).reshape(shape)


class _Set(NamedTuple):
    """One row of the table.

    Attributes:
        class_name: class in ``torchvision.datasets``.
        files: what lies in ``--data_dir``.
        read: reads one split.
        splits: arguments with which the class fetches everything.
    """

    class_name: str
    files: tuple[str, ...]
    read: Callable[[Any, Path, bool], Part]
    splits: tuple[dict[str, Any], ...] = ({"train": True},)


_SETS = {
    "cifar10": _Set("CIFAR10", ("cifar-10-batches-py",), _read_cifar),
    "cifar100": _Set("CIFAR100", ("cifar-100-python",), _read_cifar),
    "mnist": _Set("MNIST", ("MNIST/raw",), _read_mnist),
    "fashion_mnist": _Set("FashionMNIST", ("FashionMNIST/raw",), _read_mnist),
    "svhn": _Set(
        "SVHN", ("train_32x32.mat", "test_32x32.mat"), _read_svhn, splits=({"split": "train"}, {"split": "test"})
    ),
}


def read(args: DataArgs, announce: Announce) -> Source:
    """The data set ``args.dataset``, fetched if it is missing or incomplete and ``--download`` is given.

    Raises:
        UserError: it is missing, damaged, unreadable, or cannot be fetched.
    """
    root = Path(args.data_dir).expanduser()
    try:
        return _load(args.dataset, root)
    except UserError:
        if not args.download:
            raise
    _fetch(args.dataset, root, announce)
    return _load(args.dataset, root)


def _missing(dataset: str, what: str, folder: Path) -> MissingData:
    """The error for files that are not there, with the ways on; ``what`` is missing, as ``"no folder train"``."""
    return MissingData(
        f"data set {dataset} not found: {what} (looked in {folder.absolute()})",
        "use --dataset digits (needs no files), give --download or put the files there, or use --dataset folder "
        "--data_dir TREE with a tree of your own",
    )


def _torchvision_class(row: _Set) -> Any:
    import torchvision.datasets  # here, because it takes seconds

    return getattr(torchvision.datasets, row.class_name)


def _load(dataset: str, root: Path) -> Source:
    row = _SETS[dataset]
    for name in row.files:
        if not (root / name).exists():
            raise _missing(dataset, f"no {name}", root)
    try:
        parts = [row.read(_torchvision_class(row), root, is_train) for is_train in (True, False)]
    except FileNotFoundError as error:
        raise _missing(dataset, f"no {error.filename}", root) from error
    except RuntimeError as error:  # torchvision's word for a checksum that differs or a file that is not there
        raise _missing(dataset, f"{' or '.join(row.files)} is incomplete or damaged", root) from error
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    except ImportError as error:
        raise UserError(f"data set {dataset} needs the package {error.name}: pip install {error.name}") from error
    train, test = (_image_set(part, root) for part in parts)
    return Source(train, test, tuple(parts[0][2]))


def _image_set(part: Part, root: Path) -> ImageSet:
    images, labels, class_names = part
    images_PHWC = torch.from_numpy(np.ascontiguousarray(images if images.ndim == 4 else images[..., None]))
    labels_P = torch.as_tensor(np.asarray(labels, np.int64))
    if int(labels_P.max()) >= len(class_names):
        raise UserError(f"damaged files in {root}: label {int(labels_P.max())} in a set of {len(class_names)} classes")
    return ImageSet(images_PHWC, labels_P)


def _fetch(dataset: str, root: Path, announce: Announce) -> None:
    """Let torchvision download what is missing, one process at a time.

    Raises:
        UserError: it failed.
    """
    row, timeout = _SETS[dataset], socket.getdefaulttimeout()
    try:
        with held(root / ".download.lock", announce, f"downloads to {root.absolute()}"):
            announce(f"Downloading {dataset} to {root.absolute()}")
            socket.setdefaulttimeout(_TIMEOUT_S)
            for arguments in row.splits:
                _torchvision_class(row)(root, download=True, **arguments)
    except ImportError:  # the files are there and `_load` says what is missing
        return
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot download {dataset} to {root.absolute()}: {reason}; --dataset digits needs no files"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
