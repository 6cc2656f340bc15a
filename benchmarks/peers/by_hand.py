"""Local losses in plain PyTorch: as the thesis trains, as a careful loop, and tuned as for speed records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.engine import CPU, MEAN, SPEC, STD, build_method, random_images, settings
from benchmarks.peers import Setting
from datamodules.base import ImageSet
from datamodules.feed import Feed
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d

PADDING = 4
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
SGD: dict[str, Any] = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "nesterov": False,
    "lr_schedule": "constant", "epochs": 1000,
}  # fmt: skip
NUM_CHECKED, NUM_WORKERS = 20, 2


def network(model: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of ``model``, and the head of each (pooled): equal weights every time, torch's own layers."""
    method = build_method(settings("dgl", model, 2))
    method.to(memory_format=torch.contiguous_format)  # as torch builds them
    for layer in method.modules():
        if type(layer) in (Conv2d, AvgPool2d):
            layer.__class__ = type(layer).__base__  # type: ignore[assignment]
    return list(method.backbone.blocks), [method.block_heads(index)[0] for index in range(method.backbone.num_blocks)]


def check_feed(batch_size: int) -> Feed:
    """The batches on which the losses of all peers are compared, in a fixed order and not augmented."""
    return Feed(random_images(batch_size * NUM_CHECKED), SPEC, batch_size, CPU)


def check_batches(setting: Setting) -> list[tuple[Tensor, Tensor]]:
    """The same batches as normalised (B, 3, 32, 32) images and (B,) labels."""
    feed = check_feed(setting.batch_size)
    batches = [feed.batch(0, step) for step in range(NUM_CHECKED)]
    return [(batch.x_BCHW.contiguous(), batch.y_B) for batch in batches]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one at a time behind torchvision's transforms, as most people load them."""

    def __init__(self, chosen: ImageSet, *, augment: bool) -> None:
        self.pixels_PHWC, self.labels = chosen.images_PHWC[:].numpy(), chosen.labels_P.tolist()
        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image and its label."""
        return self.transform(Image.fromarray(self.pixels_PHWC[index])), self.labels[index]


def loader(
    chosen: ImageSet, batch_size: int, *, train: bool = True, num_workers: int = NUM_WORKERS
) -> DataLoader[tuple[Tensor, int]]:
    """An epoch of images; for training they are augmented and shuffled, and a last partial batch is left out.

    The workers stay from one epoch to the next, and load nothing in between.
    """
    start = "fork" if num_workers else None  # the default in a process that was spawned is slower
    return DataLoader(
        Pictures(chosen, augment=train), batch_size, shuffle=train, drop_last=train, num_workers=num_workers,
        persistent_workers=num_workers > 0, multiprocessing_context=start,
    )  # fmt: skip


class Plain:
    """In fp32: backward as soon as a block's loss is known, one optimiser, and numbers read once a turn."""

    def __init__(self, setting: Setting) -> None:
        self.setting, images = setting, random_images(setting.num_images)
        self.batches: Callable[[], Iterator[Any]] = loader(images, setting.batch_size).__iter__
        self.blocks, self.heads = network(setting.model)
        self.parameters = [p for part in (*self.blocks, *self.heads) for p in part.parameters()]
        self.optimizer = torch.optim.SGD(self.parameters, **SGD)
        self.loss, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch; the loss of the last block."""
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x.detach())
            logits = head(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            self.loss += loss.detach()
            self.correct += (logits.argmax(1) == y).sum()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def losses(self) -> list[float]:
        """Those on the batches that are the same for all peers."""
        return [self.step(x, y).item() for x, y in check_batches(self.setting)]

    def train(self) -> float:
        """A turn; the seconds that it took."""
        begin = time.perf_counter()
        for x, y in self.batches():
            self.step(x, y)
        self.loss.item(), self.correct.item()
        return time.perf_counter() - begin


class Thesis(Plain):
    """As the thesis trains (AlonNT/Thesis): an optimiser for every block, and numbers read after every block."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        pairs = zip(self.blocks, self.heads, strict=True)
        self.optimizers = [torch.optim.SGD([*block.parameters(), *head.parameters()], **SGD) for block, head in pairs]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch; the loss of the last block."""
        for block, head, optimizer in zip(self.blocks, self.heads, self.optimizers, strict=True):
            optimizer.zero_grad()
            x = block(x.detach())
            logits = head(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            self.loss += loss.item()
            self.correct += int((logits.argmax(1) == y).sum().item())
        return loss.detach()

    @torch.no_grad()
    def accuracy(self, pictures: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Accuracy of the last block's head, in percent."""
        parts = torch.nn.Sequential(*self.blocks, self.heads[-1]).eval()
        correct, count = 0, 0
        for x, y in pictures:
            correct += int((parts(x).argmax(1) == y).sum().item())
            count += len(y)
        parts.train()
        return 100 * correct / count


class Tuned(Plain):
    """What the speed records on CIFAR-10 do: bf16, channels_last, images in memory, augmentation by batch."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        for block in self.blocks:
            block.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.parameters, **SGD, fused=True)
        chosen = random_images(setting.num_images)
        x = chosen.images_PHWC[:].permute(0, 3, 1, 2).float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        self.padded = F.pad(x, (PADDING,) * 4).contiguous(memory_format=torch.channels_last)
        self.labels, self.batches = chosen.labels_P, self.augmented

    def augment(self, picked: Tensor) -> Tensor:
        """Crop and flip as in the speed records: one pass over the batch for every shift."""
        x = self.padded[picked]
        cropped = torch.empty(len(picked), 3, 32, 32).to(memory_format=torch.channels_last)
        shifts = torch.randint(2 * PADDING + 1, (len(picked), 2))
        for top in range(2 * PADDING + 1):
            for left in range(2 * PADDING + 1):
                here = (shifts[:, 0] == top) & (shifts[:, 1] == left)
                if here.any():
                    cropped[here] = x[here, :, top : top + 32, left : left + 32]
        return torch.where((torch.rand(len(picked)) < 0.5)[:, None, None, None], cropped.flip(3), cropped)

    def augmented(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a turn."""
        for picked in torch.randperm(len(self.labels)).split(self.setting.batch_size):
            yield self.augment(picked), self.labels[picked]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch under autocast; the loss of the last block."""
        with torch.autocast("cpu", torch.bfloat16):
            return super().step(x.contiguous(memory_format=torch.channels_last), y)
