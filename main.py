"""Command line of Beyond Backprop: ``python main.py --device cuda:0 --dgl`` trains, other verbs come first.

This file parses and dispatches. The rooms behind the verbs are imported after parsing, so that ``--help`` and usage
errors do not wait for torch.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consts import PROGRAM, VERBS
from engine.parallel.world import is_leader
from engine.run.signals import signals_end_it
from utils import EXIT_FAILURE, EXIT_SIGINT, Interrupted, UserError, printable

if TYPE_CHECKING:
    import cli


def train(command: cli.Command) -> None:
    """Train a network."""
    from engine import start
    from engine.run.requirements import check_torch

    check_torch()
    start.train(command)


def report(command: cli.Command) -> None:
    """Compare runs in a table, figures and a page."""
    import reports

    out = command.options["out"]
    runs, table = [Path(run) for run in command.options["runs"]], command.options["record"]
    print(reports.record(runs, Path(table)) if table else reports.report(runs, Path(out) if out else None))


def evaluate(command: cli.Command) -> None:
    """Test the weights of a run, and run the studies asked for."""
    import studies
    from engine.run.requirements import check_torch

    check_torch()
    studies.evaluate(command)


def sweep(command: cli.Command) -> None:
    """Search settings with many training runs."""
    import sweeps

    print(sweeps.sweep(command.options, command.text))


def export(command: cli.Command) -> None:
    """Write the network of a run for use without this project."""
    from engine.run.requirements import check_torch

    check_torch()
    from engine import export as exporting

    print(exporting.export(command.options))


def print_config(command: cli.Command) -> None:
    """Print the resolved settings as YAML."""
    import yaml

    assert command.args is not None
    print(yaml.safe_dump(command.args.model_dump(mode="json"), sort_keys=False), end="")


def version(command: cli.Command) -> None:
    """Print the versions of the program and of what it needs."""
    from engine.run import provenance

    print(provenance.version())


STOPPED = f"{PROGRAM}: stopped"
HANDLERS = {
    "train": train, "print_config": print_config, "version": version,
    "report": report, "evaluate": evaluate, "sweep": sweep, "export": export,
}  # fmt: skip


def missing_package(error: ModuleNotFoundError, argv: Sequence[str]) -> str:
    """What to say where this Python lacks a package; nothing where a package is there and an import in it fails."""
    name = (error.name or "").partition(".")[0]
    if not name or importlib.util.find_spec(name) is not None:
        return ""
    words = f" ARGS={shlex.quote(shlex.join(argv))}".replace("$", "$$") if argv else ""
    return (
        f"{sys.executable} has no module {name!r}: run `make setup`, then `. .venv/bin/activate`, or `make run{words}`"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command ``argv``, and return its exit code."""
    is_verb = bool(argv) and argv[0] in VERBS
    stopped = STOPPED if is_verb else f"{STOPPED} before training began"
    try:
        with signals_end_it(stopped if is_leader() else ""):
            import cli  # takes tenths of a second, so signals must be handled before

            command = cli.parse(argv)
            HANDLERS[command.verb](command)
            sys.stdout.flush()  # here a reader that is gone is noticed, not when Python ends
    except UserError as error:
        if is_leader() and not error.is_told:
            print(f"{PROGRAM}: error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if not (line := missing_package(error, argv)):
            raise
        if is_leader():
            print(f"{PROGRAM}: error: {printable(line)}", file=sys.stderr)
        return EXIT_FAILURE
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so again when it ends
        return EXIT_FAILURE
    except KeyboardInterrupt as stop:
        if is_leader():
            print(stopped, file=sys.stderr)
        return stop.args[0] if stop.args else EXIT_SIGINT
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
