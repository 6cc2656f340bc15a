"""What every data source hands over: uint8 images, labels, and a description of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from consts import TEST, TRAIN
from datamodules.stored import Stored
from layers.rows import rows
from utils import UserError

LABELLED, SECOND_VIEW = "labelled", "second view"  # names of images in a batch
Announce = Callable[[str], None]  # shows the user one line
_CHUNK_BYTES = 2**24  # of images that are looked at one part after the other
_LEVELS = 256  # of a pixel


@dataclass(frozen=True)
class DataSpec:
    """What networks, heads and plots need to know of a data set.

    Attributes:
        name: value of ``--dataset``.
        num_channels: 1 (grey), 3 (RGB), or of generated data any number.
        height: image height in pixels.
        width: image width in pixels.
        class_names: one name per label.
        mean: per channel, in [0, 1]; subtracted from the pixels.
        std: per channel, in [0, 1]; the pixels are divided by it.
    """

    name: str
    num_channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


class ImageSet(NamedTuple):
    """Images of one split, in memory or in a file.

    Attributes:
        images_PHWC: uint8 pixels; both kinds have a ``shape``, and an index, a slice or positions give a tensor.
        labels_P: int64 class indices.
    """

    images_PHWC: Tensor | Stored
    labels_P: Tensor

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.labels_P.shape[0]

    @property
    def num_bytes(self) -> int:
        """Size of the pixels."""
        return self.images_PHWC.shape.numel()

    def select(self, index_P: Tensor) -> ImageSet:
        """The images at the positions ``index_P`` (int64), in that order."""
        images = self.images_PHWC
        chosen = images.select(index_P) if isinstance(images, Stored) else images[index_P]
        return ImageSet(chosen, self.labels_P[index_P])

    def read(self, index_B: Tensor, *, pin: bool = False) -> Tensor:
        """The pixels (BHWC) at the positions ``index_B`` (int64) in CPU memory, pinned on request."""
        images, shape = self.images_PHWC, self.images_PHWC.shape[1:]
        out_BHWC = torch.empty((len(index_B), *shape), dtype=torch.uint8, pin_memory=pin)
        if isinstance(images, Stored):
            images.read(index_B, out_BHWC)
        else:
            torch.index_select(images, 0, index_B, out=out_BHWC)
        return out_BHWC

    def chunks(self) -> Iterator[Tensor]:
        """All pixels (PHWC), a few megabytes at a time."""
        step = max(1, _CHUNK_BYTES // self.images_PHWC.shape[1:].numel())
        for start in range(0, self.num_images, step):
            yield self.images_PHWC[start : start + step]

    def levels(self) -> Tensor:
        """How many pixels have each of the 256 levels, by channel: (C, 256), int64."""
        counts_CL = torch.zeros(self.images_PHWC.shape[-1], _LEVELS, dtype=torch.int64)
        for chunk_PHWC in self.chunks():
            for counts_L, channel in zip(counts_CL, chunk_PHWC.unbind(-1), strict=True):
                counts_L += torch.bincount(channel.flatten(), minlength=_LEVELS)
        return counts_CL


class Source(NamedTuple):
    """A data set as its source has it, before any image is held out."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What tells one data set from another without a look at its pixels, as a run folder keeps it.

        Returns:
            ``class_names``; ``image_shape`` (height, width, channels); and under ``train`` and ``test`` how many images
            each class has, before any is held out.
        """
        splits, count = {TRAIN: self.train, TEST: self.test}, len(self.class_names)
        numbers = {name: images.labels_P.bincount(minlength=count).tolist() for name, images in splits.items()}
        shape = list(self.train.images_PHWC.shape[1:])
        return {"class_names": list(self.class_names), "image_shape": shape, **numbers}


class Splits(NamedTuple):
    """The images of a data set by split.

    ``val`` is None unless ``--val_size`` holds images out; ``facts`` are those of `Source.facts`.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    spec: DataSpec
    facts: Mapping[str, Any]


class Batch(NamedTuple):
    """One batch on the device: normalised float32 images in channels_last layout, and int64 labels.

    Attributes:
        x_BCHW: images; behind the labelled ones those that tasks have added.
        y_B: labels of the first images.
        second_BCHW: another augmentation of the labelled images, where the method asks for one.
        drawn: what tasks drew at random for this step, by their names for it.
        added: the images that tasks have added, by name, as positions in ``x_BCHW``.
        generator: what tasks draw from, seeded for the step; None: torch's own. Numbers from torch's own generator
            cannot be drawn in a CUDA graph, those from this one can.
        share: which of how many equal parts of the step's batch this is, where it is computed in parts.
    """

    x_BCHW: Tensor
    y_B: Tensor
    second_BCHW: Tensor | None = None
    drawn: Mapping[str, Tensor] = MappingProxyType({})
    added: Mapping[str, range] = MappingProxyType({})
    generator: torch.Generator | None = None
    share: tuple[int, int] = (0, 1)

    def rows_of_step(self, draw: Callable[[int], Tensor]) -> Tensor:
        """This part's rows of what ``draw(count)`` gives for the ``count`` labelled images of the whole step."""
        count, (place, parts) = len(self.y_B), self.share
        return draw(count * parts)[place * count : (place + 1) * count]

    def shared(self, place: int, parts: int) -> Batch:
        """Part ``place`` of ``parts`` equal ones of a batch that no task has prepared; one part is all of it."""
        if parts == 1:
            return self
        size = self.y_B.shape[0] // parts
        rows = slice(place * size, (place + 1) * size)
        second_BCHW = None if self.second_BCHW is None else self.second_BCHW[rows]
        return self._replace(
            x_BCHW=self.x_BCHW[rows], y_B=self.y_B[rows], second_BCHW=second_BCHW, share=(place, parts)
        )

    def first(self, count: int) -> Batch:
        """The first ``count`` images of a batch that no task has prepared."""
        return Batch(*(None if part is None else part[:count] for part in self[:3]))  # type: ignore[arg-type]

    def with_images(self, name: str, more_BCHW: Tensor) -> Batch:
        """The batch with further images, which tasks find by ``name`` (`part`); unchanged where the name is there."""
        if name in self.added:
            return self
        place = range(len(self.x_BCHW), len(self.x_BCHW) + len(more_BCHW))
        return self._replace(x_BCHW=torch.cat((self.x_BCHW, more_BCHW)), added={**self.added, name: place})

    def part(self, x_BCHW: Tensor, *names: str) -> Tensor:
        """The rows of ``x_BCHW``, a map of all images, that belong to the images of ``names``, in this order.

        Raises:
            ValueError: no images have such a name.
        """
        places = {LABELLED: range(self.y_B.shape[0]), **self.added}
        if unknown := [name for name in names if name not in places]:
            raise ValueError(f"this batch has no images named {unknown[0]!r}; there are {', '.join(places)}")
        spans: list[range] = []
        for place in (places[name] for name in names):
            if spans and spans[-1].stop == place.start:  # neighbours are one slice, which copies nothing
                spans[-1] = range(spans[-1].start, place.stop)
            else:
                spans.append(place)
        parts = [rows(x_BCHW, span.start, span.stop) for span in spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def pixels_of(x_BCHW: Tensor, spec: DataSpec) -> Tensor:
    """The pixels in [0, 1] of images that were normalised; what rounding or a decoder puts beyond is cut off."""
    mean_C11, std_C11 = (
        torch.tensor(values, dtype=x_BCHW.dtype, device=x_BCHW.device)[:, None, None]
        for values in (spec.mean, spec.std)
    )
    return (x_BCHW * std_C11 + mean_C11).clamp(0, 1)


class MissingData(UserError):
    """The data are not where they are looked for.

    Args:
        what: says so.
        advice: what to do in a training command.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


def check_classes(class_names: Sequence[str], where: Path) -> None:
    """Refuse data of a single class.

    Raises:
        UserError: naming ``where`` they are.
    """
    if len(class_names) < 2:
        raise UserError(f"{where}: one class only, {class_names[0]}; a classifier needs two or more")
