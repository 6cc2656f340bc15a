"""Descriptions of a run: its first log lines, the network's size, and ``summary.json``."""

from __future__ import annotations

from typing import Any

import torch
from loguru import logger

from consts import ACCURACY, TEST, TRAIN, VAL, metric_name
from diagnostics.receptive_field import receptive_fields
from engine.module import TrainingModule
from methods._base import Method
from utils import UserError


def introduce(module: TrainingModule, device: torch.device, *, resuming: bool) -> None:
    """Log the first lines of a run."""
    args, optim, counts = module.args, module.args.optim, count_parameters(module.method)
    method, model, dataset = args.labels().values()
    verb, where = ("Resuming", f" from step {module.step}") if resuming else ("Training", "")
    feed, used = module.feeds[TRAIN], args.effective()
    course = f" ({optim.lr_schedule})" if "lr_schedule" in used else ""
    decay = f" wd={optim.weight_decay:g}" if "weight_decay" in used else ""
    logger.info(
        f"{verb} {model} with {method} on {dataset}{where}: {optim.epochs} epochs, "
        f"{feed.num_images} images, device {device}, {args.run.precision}, {optim.optimizer_type} "
        f"lr={optim.learning_rate:g}{course} bs={optim.batch_size}{decay} "
        f"seed={optim.seed}, {counts['num_parameters']:,} parameters + {counts['num_head_parameters']:,} in heads"
    )
    if feed.num_left_out:
        total = feed.num_images + feed.num_left_out
        logger.info(
            f"Every epoch leaves out {feed.num_left_out} of {total} images, other ones each time: no full batch"
        )
    if optim.optimizer_type == "Rprop" and feed.num_steps > 1:
        logger.warning(
            f"Rprop compares gradients of all images, and a batch has {optim.batch_size} of {feed.num_images}: give "
            f"--batch_size {feed.num_images}, or another optimiser"
        )
    if feed.placement.words:
        logger.info(f"Training images: {feed.placement.words}")
    if (count := args.run.num_replicas) > 1:
        seen = "all of it" if args.run.sync_bn else "its share"
        logger.info(
            f"Replicas: {count} share every batch, {optim.batch_size // count} images each; BatchNorm sees {seen}"
        )
    logger.info(f"Run folder: {module.run_log.folder.path}")


def count_parameters(method: Method) -> dict[str, int]:
    """Numbers of parameters of the network, and of the heads that serve training only."""
    backbone = sum(parameter.numel() for parameter in method.backbone.parameters())
    everything = sum(parameter.numel() for parameter in method.parameters())
    return {"num_parameters": backbone, "num_head_parameters": everything - backbone}


def describe_blocks(method: Method) -> list[dict[str, Any]]:
    """Output shape, number of parameters and receptive field (in pixels of the image, if known) of every block."""
    blocks = [method.backbone.block(index) for index in range(method.backbone.num_blocks)]
    return [
        {
            "output": list(block.out_shape),
            "num_parameters": sum(parameter.numel() for parameter in block.parameters()),
            "receptive_field": None if field is None else field.size,
            "stride": None if field is None else field.stride,
        }
        for block, field in zip(blocks, receptive_fields(method.backbone), strict=True)
    ]


def _summarise(module: TrainingModule, status: str) -> dict[str, Any]:
    module.note_peak()
    epochs = module.run_log.folder.epochs()
    final = epochs[-1] if epochs else {}
    num_blocks = module.method.backbone.num_blocks
    return {
        "status": status,
        "best_test_accuracy": module.best["test"],
        "best_epoch": module.best["epoch"],
        "chosen_on": VAL if VAL in module.feeds else TEST,
        "final_test_accuracy": final.get(metric_name(TEST, ACCURACY)),
        "block_test_accuracy": [final.get(metric_name(TEST, ACCURACY, index)) for index in range(num_blocks)],
        "wall_s": round(module.time_s, 2),
        "train_s": round(module.train_s, 2),
        "train_cpu_s": round(module.train_cpu_s, 2),
        "images_per_second": round(module.step * module.args.optim.batch_size / max(module.train_s, 1e-9), 1),
        "peak_memory_bytes": module.peak_bytes,
        "peak_reserved_bytes": module.reserved_bytes or None,
        "isolation": module.method.traits.isolation,
        "blocks_alone": module.args.method.BLOCKS_ALONE,
        **count_parameters(module.method),
    }


def write_summary(module: TrainingModule, status: str, problem: str | None) -> dict[str, Any]:
    """Write the final ``summary.json``, and refresh the plots for the last time."""
    summary = _summarise(module, status) | {"error": problem}
    try:
        module.run_log.folder.update_summary(**summary)
    except UserError as error:  # it must not replace the error that ended the run
        logger.warning(str(error))
    module.run_log.draw(now=True)
    return summary
