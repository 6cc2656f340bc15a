"""Local losses as Lightning's manual shows it: manual optimisation, an optimiser per block, `self.log` per number."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.engine import random_images
from benchmarks.peers import Setting
from benchmarks.peers.by_hand import SGD, check_batches, loader, network


class Module(pl.LightningModule):
    """Every block with its own loss."""

    def __init__(self, blocks: list[nn.Module], heads: list[nn.Module]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.blocks, self.heads = torch.nn.ModuleList(blocks), torch.nn.ModuleList(heads)
        self.seen: list[Tensor] = []
        self.seconds = 0.0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for every block."""
        pairs = zip(self.blocks, self.heads, strict=True)
        return [torch.optim.SGD([*block.parameters(), *head.parameters()], **SGD) for block, head in pairs]

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Stop it."""
        self.seconds += time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """One batch."""
        x, y = batch
        parts = zip(self.blocks, self.heads, self.optimizers(), strict=True)
        for number, (block, head, optimizer) in enumerate(parts):
            x = block(x.detach())
            logits = head(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log(f"train/block_{number}/loss", loss)
            self.log(f"train/block_{number}/accuracy", (logits.argmax(1) == y).float().mean())
        self.seen.append(loss.detach())


class Lightning:
    """A trainer that goes on for one epoch more at every turn."""

    def __init__(self, setting: Setting) -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="(pytorch_lightning|lightning_fabric).*")
        self.setting, self.module = setting, Module(*network(setting.model))
        self.loader = loader(random_images(setting.num_images), setting.batch_size)

    def _fit(self, batches: Any) -> None:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, precision="bf16-mixed", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(self.module, batches)

    def losses(self) -> list[float]:
        """Those on the batches that are the same for all peers."""
        self.module.seen.clear()
        self._fit(DataLoader(check_batches(self.setting), batch_size=None))  # type: ignore[arg-type]
        return [loss.item() for loss in self.module.seen]

    def train(self) -> float:
        """A turn; its seconds without what `fit` does before and after the epoch, since a run has it once."""
        self.module.seen.clear()
        self._fit(self.loader)
        return self.module.seconds
