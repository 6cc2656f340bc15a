"""A trained network for use without this project: the verb ``export``.

It is written twice: as weights, a plain state dict, and as a program of `torch.export`, which runs wherever torch does.
TorchScript was not tried, since torch has given it up; ONNX would need two more packages, and takes this program.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from loguru import logger
from torch import Tensor, nn

import cli
from consts import CODE_SETTINGS
from datamodules.base import DataSpec
from engine.devices import use_device
from engine.run.console import log_to_terminal
from engine.trained import load_trained
from utils import UsageError, UserError, atomic_write

SUFFIX = ".pt2"  # of programs, as torch calls them


def export(options: Mapping[str, Any]) -> str:
    """Write the network of a run, and return lines that say what was written and how it is loaded.

    Args:
        options: what ``main.py export`` was given: ``runs``, ``file``, ``weights``, ``method``, ``model``,
            ``data_dir``.

    Raises:
        UsageError: there is no such run, or the file cannot be written there.
        UserError: its checkpoint cannot be read, or torch cannot turn its network into a program.
    """
    folder, file = Path(options["runs"][0]), Path(options["file"])
    if file.suffix != SUFFIX or not file.parent.is_dir():
        problem = f"the name must end in {SUFFIX}" if file.suffix != SUFFIX else f"there is no folder {file.parent}"
        raise UsageError(f"{file}: {problem}; the weights are written beside it, to {file.with_suffix('.pt').name}")
    typed = {name: options[name] for name in CODE_SETTINGS if options[name] is not None}
    log_to_terminal()
    args = cli.args_of_run(folder, typed, logger.warning)
    if (place := options["data_dir"]) is not None:
        args = cli.moved(folder, args, place)
    device = use_device("cpu", deterministic=args.optim.deterministic)
    run = load_trained(folder, args, options["weights"], device)
    network, images = run.method.backbone.eval(), run.feed(run.splits.test).batch(0, 0).x_BCHW
    program = program_of(network, images, str(folder))
    with torch.no_grad():
        difference = float((program.module()(images) - network(images)).abs().max())
    weights = file.with_suffix(".pt")
    _write(file, lambda stream: torch.export.save(program, stream))
    _write(weights, lambda stream: torch.save(network.state_dict(), stream))
    agreement = "the same bits as" if difference == 0 else f"at most {difference:.2g} from"
    return "\n".join(
        [
            f"{file}: {_signature(run.splits.spec)}, in float32; on {len(images)} test images {agreement} the network",
            f"{weights}: its weights by name, as a state dict",
            f'python -c "import torch; network = torch.export.load({str(file)!r}).module(); '
            f'weights = torch.load({str(weights)!r})"',
        ]
    )


def program_of(network: nn.Module, x_BCHW: Tensor, what: str) -> torch.export.ExportedProgram:
    """The program that computes what ``network`` computes, from batches of any size.

    Args:
        network: in evaluation mode.
        x_BCHW: images, for their shape; none of them gets into the program.
        what: begins the message of an error.

    Raises:
        UserError: torch.export cannot trace it, or it computes something else for another number of images.
    """
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what torch has to say of a failure is many lines, and its own code
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            return torch.export.export(
                network,
                (torch.zeros_like(x_BCHW[:2]),),
                dynamic_shapes=({0: torch.export.Dim("num_images")},),
                strict=False,
            )
    except Exception as error:  # code of the user's own may do anything while it is traced
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{what}: torch.export cannot trace its network: {type(error).__name__}: {reason}") from error
    finally:
        logging.disable(logged)


def _write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    try:
        with atomic_write(path) as stream, warnings.catch_warnings(action="ignore"):  # of channels_last weights
            write(stream)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _signature(spec: DataSpec) -> str:
    """Shapes of the program's input and output, and how the pixels of an image are scaled for it."""
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (spec.mean, spec.std))
    shape = f"(B, {spec.num_channels}, {spec.height}, {spec.width})"
    return (
        f"images {shape} as (pixel / 255 - mean) / std with mean ({mean}) and std ({std}) "
        f"to logits (B, {spec.num_classes})"
    )
