"""Start a training run: build data, network and method from the settings, find a run to resume, rank a curriculum.

torch is imported inside functions, so that a command which only launches processes or is refused answers at once.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from consts import CONFIG_FILE, PROGRAM
from engine.loading import quick_imports
from engine.parallel import world
from engine.run.console import log_to_terminal
from engine.run.tensorboard_log import check_tensorboard
from utils import UsageError, UserError

if TYPE_CHECKING:
    from datamodules.base import Splits
    from methods._base import Method
    from model import Backbone
    from schemas import Args


def train(command: cli.Command) -> None:
    """Run a training command to its end, or launch the processes that do."""
    from loguru import logger

    args = command.args
    assert args is not None
    if args.run.tensorboard:
        check_tensorboard()
    if args.run.resume is None:
        find_initial(args)
    must_launch = world.must_launch(args.run)
    if world.is_leader():
        log_to_terminal()
    else:
        logger.remove()
    if must_launch:
        announce(command)
        from engine.parallel.launch import launch

        program = Path(__file__).resolve().parent.parent / PROGRAM
        launch(program, shlex.split(command.text)[1:], world.num_ranks(args.run), args.run.num_replicas)
        return
    with contextlib.ExitStack() as stack:
        ranks: world.Alone = world.Alone()
        if world.is_grid(args.run):
            from engine.parallel.ranks import joined_ranks

            ranks = stack.enter_context(joined_ranks(args.run))
        resume, is_done = ranks.agree(run_to_resume(args) if ranks.is_leader else (None, False))
        teacher = find_teacher(args) if resume is None and ranks.is_leader else None
        if not is_done:
            if not world.was_launched():  # the command that launched these processes has done so
                announce(command)
            _train_on(ranks, command, args, resume, teacher)


def announce(command: cli.Command) -> None:
    """Log what will be trained, and the warnings about its settings."""
    from loguru import logger

    assert command.args is not None
    logger.info(first_line(command.args))
    for warning in command.warnings:
        logger.warning(warning)


def first_line(args: Args) -> str:
    """What will be trained and where, as far as it is known before torch is loaded, which takes seconds."""
    going_on = f", going on with {args.run.resume}" if args.run.resume not in (None, "auto") else ""
    count, (method, model, dataset) = args.optim.epochs, args.labels().values()
    return (
        f"Starting: {model} with {method} on {dataset}, {count} "
        f"epoch{'s' * (count > 1)}, device {args.run.device}{going_on}"
    )


def assemble(
    args: Args,
    check: Callable[[int], object] | None = None,
    initial: Path | None = None,
    folder: Path | None = None,
) -> tuple[Method, Splits]:
    """Load the data that ``args`` name, and build the network with its method.

    Args:
        args: the settings.
        check: called with the number of blocks where only building the network shows it; by default the settings are
            checked against it.
        initial: a run folder, with whose weights the network begins.
        folder: of the run that the settings come from; None for a new one.

    Raises:
        UsageError: settings, network and data do not fit each other.
        UserError: data or initial weights are missing or damaged, or memory runs out.
    """
    import torch
    from loguru import logger

    import methods
    from datamodules import load_data
    from datamodules.base import MissingData
    from engine.memory import is_out_of_memory
    from networks import build_backbone

    try:
        splits = load_data(args.data, announce=logger.info, progress=args.run.progress_bar)
        torch.manual_seed(args.optim.seed)  # the backbone first, so that every method starts from the same weights
        backbone = build_backbone(args.model, splits.spec, args.num_skipped_blocks)
        if args.num_blocks is None:
            (check or args.with_blocks)(backbone.num_blocks)
        make = partial(methods.load(args.method.method), args.method, backbone, splits.spec)
        return (make() if initial is None else _initialised(initial, backbone, make)), splits
    except MissingData as error:
        if folder is None:
            raise
        raise UserError(f"{error.what}; give --data_dir, where the data of {folder} are on this machine") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError("out of memory while data and network are loaded") from error
        raise


def _initialised(run: Path, backbone: Backbone, make: Callable[[], Method]) -> Method:
    """A method that begins with the weights of another run; ``make`` builds it around the ``backbone``."""
    from engine.transfer import Initial

    weights = Initial(run)
    weights.give_to_network(backbone)
    method = make()
    weights.give_to_heads(method)
    return method


def run_to_resume(args: Args) -> tuple[Path | None, bool]:
    """The run folder that ``--resume`` refers to, if any, and whether that run is finished already."""
    from loguru import logger

    from engine.run.folder import find_unfinished, is_done

    resume = Path(args.run.resume) if args.run.resume not in (None, "auto") else None
    if args.run.resume == "auto" or (resume is None and world.is_restart()):
        asked = "--resume auto" if args.run.resume else "Started again"
        resume = find_unfinished(Path(args.run.path), args, or_done=args.run.resume == "auto")
        if resume is None or not is_done(resume):
            found = f"going on with {resume}" if resume else "no unfinished run of these settings; starting"
            logger.info(f"{asked}: {found}")
    if resume is not None and is_done(resume):
        again = "; for another run of these settings leave out --resume auto" if args.run.resume == "auto" else ""
        logger.info(f"{resume} is finished already; nothing to do{again}")
        return resume, True
    return resume, False


def find_teacher(args: Args) -> tuple[Path, Args] | None:
    """Folder and settings of the run that ``--curriculum_teacher`` names; None without a curriculum.

    Raises:
        UsageError: there is no such run, or it was trained on another data set.
    """
    if args.data.curriculum == "none":
        return None
    flag, path = "--curriculum_teacher", Path(str(args.data.curriculum_teacher))
    try:
        settings = cli.args_of_run(path)
    except UsageError as error:
        raise UsageError(f"{flag} {error}") from None
    cli.check_same_images(args, settings, flag=flag)
    return path, settings.with_data_in(args.data.data_dir)


def find_initial(args: Args) -> Path | None:
    """The run folder that ``--init_from`` names.

    Raises:
        UsageError: there is no such run.
    """
    path = None if args.model.init_from is None else Path(args.model.init_from)
    if path is not None and not (path / CONFIG_FILE).is_file():
        raise UsageError(f"--init_from {path}: no run folder there (it would hold {CONFIG_FILE})")
    return path


def _train_on(
    ranks: world.Alone, command: cli.Command, args: Args, resume: Path | None, teacher: tuple[Path, Args] | None
) -> None:
    """Train as one of ``ranks``, in a new run folder or in ``resume``; ``teacher`` ranks the images of a curriculum."""
    initial = find_initial(args) if resume is None else None
    from loguru import logger

    with quick_imports():
        from engine.devices import check_precision, use_device
        from engine.trained import load_trained, rank
        from engine.trainer import Job, run

    def check(count: int) -> None:
        for warning in cli.check_blocks(command, count):
            logger.warning(warning)

    with ranks.together():
        device = use_device(ranks.device_name(args.run), deterministic=args.optim.deterministic)
        check_precision(device, args.run.precision)
        method, splits = assemble(args, check, initial, resume)
        ranking_P = None
        if teacher is not None:
            ranking_P = rank(load_trained(*teacher, "best", device), splits.train, args.data.curriculum)
    run(Job(args, command.text, method, splits, device, resume, ranks, ranks.agree(ranking_P)))
