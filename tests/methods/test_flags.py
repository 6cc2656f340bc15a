"""No flag without effect: for every rule and every flag that it accepts, a few steps leave other bits than without.

Flags that a rule does not take, or that have no effect beside the others, are refused; both are decided by what the
settings declare. A new rule that lists a group of options and reads none of it fails here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest
import torch
from pydantic.fields import FieldInfo

import cli
import methods
from cli.messages import choices, is_boolean
from consts import NETWORKS, SUPER_CLASSES, Architecture
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from engine.layouts import build_layout
from engine.loop.layout import Course
from engine.loop.optimizer import build_optimizer
from networks import build_backbone
from schemas import Args, settings_of
from sections.data import DataArgs
from sections.fields import extra, fields_of
from sections.model import ModelArgs
from sections.run import OptimArgs
from tests.conftest import RULES
from utils import UsageError, short_name

CLASSES = tuple(name for group in SUPER_CLASSES[0] for name in group)
SPEC = DataSpec("random", 3, 16, 16, CLASSES, (0.5,) * 3, (0.5,) * 3)
NETWORK = Architecture((16, "M", 4, 6, "M", 4, 5), mlp_hidden_dim=7)  # five blocks, most of the cost in the first
STEPS = (0, 1, 12, 13)  # of twenty: rates and phases differ between the first and the last
BASE = ("--model=VGGs", "--batch_size=12", "--epochs=10", "--precision=fp32", "--learning_rate=0.1", "--device=cpu")
# What decides which images there are, or how they are scaled, before a rule sees any: tests/datamodules.
LOADED = {"dataset", "data_dir", "download", "image_size", "train_size", "val_size", "random_labels", "normalization"}
LOADED |= {name for name in DataArgs.model_fields if name.startswith("curriculum")}
LOADED |= {name for group in DataArgs.GROUPS for name in fields_of(group)}
# Fixed by this test; determinism is about a GPU's kernels. Other networks: tests/networks; another run: tests/engine.
FIXED = {"method", "model", "stem", "init_from", "batch_size", "epochs", "deterministic"}
FIXED |= {"num_layers", "layer_width", "patch_size"}
BEYOND = {  # flags that make a fact so
    "built_in": (), "pads": (), "trained_modules": (), "blocks_alone": (), "augments": (), "classifier": (),
    "decodes": ("--ssl",),
}  # fmt: skip


def flags_of(rule: str) -> list[str]:
    """Every flag of a rule, its network, images and optimiser that is to change what is learned."""
    return [
        name
        for section in (RULES[rule], ModelArgs, OptimArgs, DataArgs)
        for name, field in fields_of(section).items()
        if name not in LOADED | FIXED
        and not extra(field, "measures")
        and (RULES[rule].CLASSIFIES or "classifier" not in extra(field, "needs"))
    ]


PAIRS = [(rule, name) for rule in RULES for name in flags_of(rule)]


def values_of(field: FieldInfo) -> list[object]:
    """Values, in the order in which they are tried."""
    if is_boolean(field):
        return [True, False]
    if words := choices(field):
        return list(words)
    if isinstance(field.default, tuple):
        return ["0.3,0.6"] if field.default else ["0,2"]
    return (
        [2, 1, 3, 0, 8] if int in getattr(field.annotation, "__args__", (field.annotation,)) else [0.5, 1, 2.0, 0, 0.01]
    )


def context(rule: str, name: str, depth: int = 0) -> tuple[str, ...]:
    """The flags with which ``name`` has an effect, and without which it cannot be used."""
    fields, words = settings_of(rule), []
    requires = {other: values for other, (values, _) in extra(fields[name], "requires").items()}
    for other, values in (extra(fields[name], "needs") | requires).items():
        if other in BEYOND:
            words += BEYOND[other]
            continue
        words += context(rule, other, depth + 1)
        if fields[other].default not in values:
            words.append(f"--{other}={next(value for value in values_of(fields[other]) if value in values)}")
    return tuple(words)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "VGGs", NETWORK)


def train(words: tuple[str, ...]) -> list[torch.Tensor]:
    """All that `STEPS` leave: parameters, buffers, losses and accuracies."""
    args = parse(words)
    torch.manual_seed(args.optim.seed)
    method = methods.load(args.method.method)(
        args.method, build_backbone(args.model, SPEC, args.num_skipped_blocks), SPEC
    )
    generator = torch.Generator().manual_seed(3)
    images = ImageSet(
        torch.randint(256, (24, 16, 16, 3), dtype=torch.uint8, generator=generator), torch.arange(24) % len(CLASSES)
    )
    feed = Feed(
        images, SPEC, args.optim.batch_size, torch.device("cpu"), augment=args.data, seed=args.optim.seed,
        two_views=method.two_views,
    )  # fmt: skip
    optimizer, count = build_optimizer(args.optim, method), feed.num_steps * args.optim.epochs
    found: dict[str, float] = {}
    for step in STEPS:
        method.enter_phase(step * method.phases.count // count)
        totals = build_layout(args, method, feed, optimizer, step=step).run(Course([step]))
        found |= {f"{step} {name}": value for name, value in totals.sums.items()}
    return [*method.state_dict().values(), torch.tensor([*found.values()])]


def parse(words: tuple[str, ...]) -> Args:
    args = cli.parse([*BASE, *words]).args
    assert args is not None
    return args


@functools.lru_cache(maxsize=64)
def trained(words: tuple[str, ...]) -> list[torch.Tensor]:
    return train(words)


def accepted(rule: str, name: str, words: tuple[str, ...]) -> Iterator[str]:
    """The flag with each value that is not refused, but for the value that it has anyway."""
    now = parse(words).flat()[name]
    for value in values_of(settings_of(rule)[name]):
        flag = f"--{name}={value}"
        with contextlib.suppress(UsageError):
            if value != now and parse((*words, flag)):
                yield flag


@pytest.mark.parametrize(("rule", "name"), PAIRS, ids=[f"{short_name(rule)}-{name}" for rule, name in PAIRS])
def test_a_flag_that_a_rule_accepts_changes_what_it_learns(rule: str, name: str) -> None:
    words = (f"--method={rule}", *context(rule, name))
    flags = list(accepted(rule, name, words))
    assert flags, f"no value of --{name} is accepted with {' '.join(words)}"
    changes = (not alike(trained(words), train((*words, flag))) for flag in flags)
    every = choices(settings_of(rule)[name])  # of a choice each word, of a number any
    ignored = f"{rule} accepts {', '.join(flags)} and ignores it: leave the group out of {RULES[rule].__name__}"
    assert all(changes) if every else any(changes), ignored


def alike(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return len(before) == len(after) and all(map(torch.equal, before, after))
