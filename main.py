"""Train a convolutional network without end-to-end back-propagation: ``python main.py --device cuda:0 --dgl``.

The run in one screen: flags to settings, data, network and method, engine, report. torch and Lightning are imported
only when there is something to train, so that help and refusals answer at once.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consts import PROGRAM
from engine.parallel.world import is_leader
from engine.run.signals import signals_end_it
from utils import EXIT_SIGINT, Interrupted, UsageError, UserError, printable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    import cli
    from datamodules.base import Splits
    from engine.parallel.world import Alone
    from engine.trained import Trained
    from methods._base import Method
    from schemas import Args


def assemble(args: Args) -> tuple[Method, Splits]:
    """The data that ``args`` name, and the network with its rule."""
    import torch
    from loguru import logger

    import methods
    from datamodules import load_data
    from model import build_backbone

    splits = load_data(args.data, announce=logger.info, progress=args.run.progress_bar)
    torch.manual_seed(args.optim.seed)  # the backbone first, so that every method starts from the same weights
    backbone = build_backbone(args.model, splits.spec, args.num_skipped_blocks)
    return methods.load(args.method.method)(args.method, backbone, splits.spec), splits


def train(command: cli.Command) -> None:
    """Run a training command to its end, or start the processes that do."""
    args = command.args
    assert args is not None
    from loguru import logger

    from engine.parallel import world
    from engine.run.console import log_to_terminal

    if world.must_launch(args.run):
        from engine.parallel.launch import launch

        words = shlex.split(command.text)[1:]
        launch(Path(__file__).resolve(), words, world.num_ranks(args.run), args.run.num_replicas)
        return
    if world.is_leader():
        log_to_terminal()
    else:
        logger.remove()
    for warning in command.warnings:
        logger.warning(warning)
    with contextlib.ExitStack() as held:
        ranks: Alone = world.Alone()
        if args.run.layer_parallel == "processes":
            from engine.parallel.ranks import joined_ranks

            ranks = held.enter_context(joined_ranks(args.run))
        resume, is_done = ranks.agree(run_to_resume(args) if ranks.is_leader else (None, False))
        judge = teacher_of(args) if resume is None and ranks.is_leader else None
        if not is_done:
            train_in(args, command.text, resume, ranks, judge)


def run_to_resume(args: Args) -> tuple[Path | None, bool]:
    """The run folder that ``--resume`` means, if it means one, and whether there is nothing left to do in it."""
    from loguru import logger

    from engine.parallel.world import is_restart
    from engine.run.folder import find_unfinished, is_done

    resume = Path(args.run.resume) if args.run.resume not in (None, "auto") else None
    if args.run.resume == "auto" or (resume is None and is_restart()):
        asked = "--resume auto" if args.run.resume else "Started again"
        resume = find_unfinished(Path(args.run.path), args)
        logger.info(
            f"{asked}: {f'going on with {resume}' if resume else 'no unfinished run of these settings; starting'}"
        )
    if resume is not None and is_done(resume):
        logger.info(f"{resume} is finished already; nothing to do")
        return resume, True
    return resume, False


def train_in(args: Args, text: str, resume: Path | None, ranks: Alone, judge: tuple[Path, Args] | None) -> None:
    """Train as one of ``ranks``, in a new run folder or in ``resume``; ``judge`` is the teacher of a curriculum."""
    from engine.devices import resolve_device
    from engine.trainer import Job, run

    with ranks.together():
        device = resolve_device(ranks.device_name(args.run))
        method, splits = assemble(args)
        ranking_P = None
        if judge is not None:
            ranking_P = ranking(args, judge, splits, device)
    run(Job(args, text, method, splits, device, resume, ranks, ranks.agree(ranking_P)))


def ranking(args: Args, judge: tuple[Path, Args], splits: Splits, device: torch.device) -> Tensor:
    """The training images in the order in which ``--curriculum`` lets them in."""
    from loguru import logger

    from engine.teacher import rank

    ranking_P = rank(restored(*judge, "best", device), splits.train, args.data.curriculum)
    logger.info(f"Curriculum: {args.data.curriculum}, {len(ranking_P)} images ranked by {judge[0]}")
    return ranking_P


def teacher_of(args: Args) -> tuple[Path, Args] | None:
    """Folder and settings of the run that ``--curriculum_teacher`` names; None without a curriculum.

    Raises:
        UsageError: there is no such run, or it saw another data set.
    """
    import cli

    if args.data.curriculum == "none":
        return None
    flag, path = "--curriculum_teacher", Path(str(args.data.curriculum_teacher))
    try:
        settings = cli.args_of_run(path)
    except UsageError as error:
        raise UsageError(f"{flag} {error}") from None
    cli.check_same_images(args, settings, flag=flag)
    return path, settings


def report(command: cli.Command) -> None:
    """Compare runs."""
    import reports

    out = command.options["out"]
    print(reports.report([Path(run) for run in command.options["runs"]], Path(out) if out else None))


def restored(path: Path, args: Args, weights: str, device: torch.device) -> Trained:
    """The run in the folder ``path``, at its checkpoint ``weights``."""
    from engine.run import checkpoint
    from engine.run.folder import RunFolder
    from engine.trained import Trained

    folder = RunFolder(path)
    state = checkpoint.load(folder.checkpoints / f"{weights}.ckpt")
    method, splits = assemble(args)
    checkpoint.restore(method, state)
    return Trained(folder, method.to(device), splits, args.run.precision, device)


def evaluate(command: cli.Command) -> None:
    """Test a run's weights again, every block's head included."""
    import cli

    options = command.options
    paths = [Path(path) for path in (*options["runs"], options["cka"]) if path is not None]
    settings = [cli.args_of_run(path) for path in paths]
    cli.check_same_images(*settings)

    from consts import TEST
    from engine.devices import resolve_device
    from engine.evaluation import evaluate as measure
    from engine.run.console import log_to_terminal
    from engine.studies import studies

    log_to_terminal()
    device = resolve_device(options["device"])
    run, *others = [restored(*each, options["weights"], device) for each in zip(paths, settings, strict=True)]
    for name, value in measure(run.method, run.feed(run.splits.test), run.precision).means(TEST).items():
        print(f"{name:28} {value:.4f}")
    for line in studies(run, options, others):
        print(line)


def sweep(command: cli.Command) -> None:
    """Run many trainings, and find the best."""
    import sweeps

    print(sweeps.sweep(command.options, command.text))


def print_config(command: cli.Command) -> None:
    """Print the resolved settings."""
    import yaml

    assert command.args is not None
    print(yaml.safe_dump(command.args.model_dump(mode="json"), sort_keys=False), end="")


STOPPED = f"{PROGRAM}: stopped before training began"
VERBS = {"train": train, "report": report, "evaluate": evaluate, "sweep": sweep, "print_config": print_config}


def main(argv: Sequence[str]) -> int:
    """Do what ``argv`` asks for, and return the exit code."""
    try:
        with signals_end_it(STOPPED if is_leader() else ""):
            import cli  # tenths of a second, in which a signal must find us ready

            command = cli.parse(argv)
            VERBS[command.verb](command)
    except UserError as error:
        if is_leader() and not error.is_told:
            print(f"{PROGRAM}: error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        if is_leader():
            print(STOPPED, file=sys.stderr)
        return stop.args[0] if stop.args else EXIT_SIGINT
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
