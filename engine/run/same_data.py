"""Whether a run that goes on, or is measured, gets the data that it was trained with, which may have moved since."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from consts import CONFIG_FILE, DATA_FILE, TEST, TRAIN
from engine.run.folder import RunFolder
from schemas import DataArgs
from sections.yaml_file import read_yaml
from utils import UsageError, UserError, read_json, write_text


def check_same_data(folder: RunFolder, data: DataArgs, facts: Mapping[str, Any]) -> None:
    """Refuse data that are not those of a run.

    Classes, the shape of images and their number in each class are compared; nothing is where the run folder does not
    say them. Pixels are not: decoders of JPEG differ from machine to machine.

    Args:
        folder: of the run.
        data: where the data are now.
        facts: of these data (`datamodules.base.Source.facts`).

    Raises:
        UsageError: ``--data_dir`` names a place with other data.
        UserError: those in the run's own place have changed.
    """
    problem = _difference(_facts(folder), facts)
    if problem is None:
        return
    if moved_from(folder, data) is not None:
        raise UsageError(f"--data_dir {data.data_dir}: these are not the data of {folder.path}: {problem}")
    raise UserError(f"{data.data_dir}: the data have changed since {folder.path} was started: {problem}")


def moved_from(folder: RunFolder, data: DataArgs) -> str | None:
    """Where the data of a run were by its settings, if that is not where they are now."""
    before = str(_place_in(_settings(folder)).get("data_dir", data.data_dir))
    one, two = (Path(path).expanduser().absolute() for path in (before, data.data_dir))
    return None if one == two else before


def words_for_move(folder: RunFolder, data: DataArgs, before: str) -> str:
    """A warning that the data of a run have moved."""
    line = f"The data of {folder.path} are read from {data.data_dir}; it was started with {before}"
    return line if _facts(folder) else f"{line}, and has no {DATA_FILE} that would tell whether they are the same"


def record_move(folder: RunFolder, data: DataArgs) -> None:
    """Write into the settings of a run where its data are now.

    Raises:
        UserError: they cannot be written.
    """
    import yaml

    content = _settings(folder)
    _place_in(content)["data_dir"] = data.data_dir
    with folder.writing(CONFIG_FILE):
        write_text(folder.path / CONFIG_FILE, yaml.safe_dump(content, sort_keys=False))


def _settings(folder: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(folder.path / CONFIG_FILE)
    return content


def _place_in(content: dict[str, Any]) -> dict[str, Any]:
    """The mapping that holds ``data_dir``: the section ``data``, or the whole content where settings are flat."""
    section = content.get("data")
    return section if isinstance(section, dict) and "data_dir" in section else content


def _facts(folder: RunFolder) -> dict[str, list[Any]] | None:
    """What the run folder says of its data; None where it was made before that was written, or the file is damaged."""
    try:
        known = read_json(folder.path / DATA_FILE)
        parts = [known[name] for name in ("class_names", "image_shape", TRAIN, TEST)]
    except (UserError, KeyError, TypeError):
        return None
    return known if all(isinstance(part, list) for part in parts) else None


def _difference(known: Mapping[str, list[Any]] | None, found: Mapping[str, list[Any]]) -> str | None:
    """In words, the first fact in which data differ from those that are known; None where there is none."""
    if known is None:
        return None
    names, before = found["class_names"], known["class_names"]
    if names != before:
        return f"the classes are {', '.join(names)}, and were {', '.join(map(str, before))}"
    shape, before = found["image_shape"], known["image_shape"]
    if shape != before:
        return f"the images are {_by(shape)} (height x width x channels), and were {_by(before)}"
    for split in (TRAIN, TEST):
        for name, count, num_before in zip_longest(names, found[split], known[split]):
            if count != num_before:
                return f"there are {count} {split} images of class {name}, and were {num_before}"
    return None


def _by(shape: list[Any]) -> str:
    return " x ".join(map(str, shape))
