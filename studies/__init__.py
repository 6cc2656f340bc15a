"""Studies of a trained run: the verb ``evaluate``, which loads a checkpoint and measures it.

A study is one file with a function ``study(run, value)``; that of ``studies/linear.py`` is called by ``--linear``. It
gets the run and the value of its flag, writes a table and a figure into the run's folder, and yields the lines to
print. Studies are found by file name; files that start with an underscore hold what several studies share. Flags and
their help are declared in `cli.build`. torch is imported inside functions, so that a wrong folder is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from consts import ACCURACY, CODE_SETTINGS, LOSS, TEST, metric_name

if TYPE_CHECKING:
    import cli


def names() -> list[str]:
    """The studies, by file name; each is also the name of its flag."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def results(means: Mapping[str, float]) -> Iterator[str]:
    """A line for each exit, by `metric_name`; the network's own is that of its last block."""
    exits = dict.fromkeys(name.split("/")[1] for name in means if name.count("/") == 2)
    whole = metric_name(TEST, ACCURACY)
    *before, last = [*exits]
    for exit_ in [*before, f"network, {last}"] if whole in means else [*before, last]:
        accuracy, loss = (means[f"{TEST}/{exit_.rpartition(' ')[2]}/{quantity}"] for quantity in (ACCURACY, LOSS))
        yield f"{exit_:18} {TEST} {ACCURACY} {accuracy:6.2f} %   {LOSS} {loss:.4f}"


def evaluate(command: cli.Command) -> None:
    """Print the test loss and accuracy of the network and of every block's head, then run the studies asked for.

    Raises:
        UserError: a run cannot be loaded, a study does not apply to it, or files cannot be written.
    """
    import cli

    options = dict(command.options)
    paths = [Path(path) for path in (*options["runs"], options["cka"]) if path is not None]
    typed = {name: options[name] for name in CODE_SETTINGS if options.get(name) is not None}
    warnings: list[str] = []
    settings = [cli.args_of_run(path, typed if path == paths[0] else {}, warnings.append) for path in paths]
    if (place := options["data_dir"]) is not None:
        settings = [cli.moved(path, args, place) for path, args in zip(paths, settings, strict=True)]
    cli.check_same_images(*settings)

    from loguru import logger

    from engine.devices import tf32_obstacle, use_device
    from engine.evaluation import evaluate as measure
    from engine.run.console import log_to_terminal
    from engine.trained import load_trained

    log_to_terminal()
    for line in warnings:
        logger.warning(line)
    device = use_device(options["device"], deterministic=any(args.optim.deterministic for args in settings))
    if any(args.run.precision == "tf32" for args in settings) and (obstacle := tf32_obstacle(device)):
        logger.warning(f"Trained in tf32, measured in fp32 on {device}: {obstacle}")
    run, *others = [load_trained(*each, options["weights"], device) for each in zip(paths, settings, strict=True)]
    options["cka"] = next(iter(others), None)
    for line in results(measure(run.method, run.feed(run.splits.test), run.precision).means(TEST)):
        print(line)
    for study in names():
        wanted = options.get(study)
        if wanted is not None and wanted is not False:  # 0 points are a value
            for line in import_module(f"{__name__}.{study}").study(run, wanted):
                print(line)
