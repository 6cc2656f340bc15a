"""All settings of a run, from the sections in `sections/`, and the few rules between sections.

The command line, its help and its errors are made from them. Nothing here touches torch, the disk, the clock, the
environment or a GPU. A method's own section is a file in ``sections/rules/`` with the name of its file in ``methods/``.
Names of settings are unique across sections: flags are flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.fields import FieldInfo

from consts import CODE_SETTINGS, digest_name
from sections import combine
from sections.data import DataArgs
from sections.fields import Section, build, fields_of, with_default
from sections.files import sha256, source_of
from sections.model import ModelArgs
from sections.modules import Modules, Overlap
from sections.own import own_function, own_rule
from sections.parts import found
from sections.phases import Phases
from sections.rule import DEFAULT_METHOD, MethodArgs
from sections.run import OptimArgs, RunArgs
from sections.task import SSL, SSL_TASKS, TASKS
from utils import UsageError, code_file, short_name

__all__ = ["DEFAULT_METHOD", "Args", "DataArgs", "MethodArgs", "ModelArgs", "OptimArgs", "RunArgs", "build_args"]


SECTIONS: dict[str, type[Section]] = {
    "model": ModelArgs, "method": MethodArgs, "data": DataArgs, "optim": OptimArgs, "run": RunArgs,
}  # fmt: skip


# What may differ between a run and its continuation: where things are shown or computed, not what is learned.
HARMLESS = frozenset(RunArgs.model_fields) - {
    "precision", "compile", "num_replicas", "sync_bn", "async_buffer"
} | {"data_dir", "download"}  # fmt: skip


Rules = Mapping[str, type[MethodArgs]]  # by name, or of the user's own by the path of their file


@cache
def method_sections(*own: str) -> dict[str, type[MethodArgs]]:
    """Name of every method and its section; before them, by path, those of the user's ``own`` (`sections.own`)."""
    return {path: own_rule(path).section for path in own} | found("sections.rules", MethodArgs)


@cache
def fact_words() -> dict[str, str]:
    """In words, the conditions on several settings that a setting may need (`Args.facts`)."""
    alone = ", ".join(name for name, section in method_sections().items() if section.BLOCKS_ALONE)
    drawing = " or ".join(name for name in SSL_TASKS if TASKS[name].DECODES)
    return {
        "built_in": "a network of the project, as --model BasicCNN",
        "pads": "a network of the project with convolutions that keep the size of their maps, as --model BasicCNN",
        "from_library": "--model torchvision:NAME or timm:NAME",
        "trained_modules": "more than one block that learns, since it concerns those before the last: train more of "
        "them (--first_trainable_block, --num_modules)",
        "blocks_alone": f"a rule whose blocks learn on their own, without a signal or weights from above: {alone}",
        "classifier": "a rule that trains the network's classifier",
        "decodes": f"--ssl with --ssl_task {drawing}, or a weight of such a task",
        "augments": "--random_crop, --random_resized_crop, --random_horizontal_flip or --random_erasing",
    }


class Args(Section):
    """All settings of a run."""

    model: ModelArgs
    method: SerializeAsAny[MethodArgs]
    data: DataArgs
    optim: OptimArgs
    run: RunArgs

    _counted: int | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _possible(self) -> Args:
        self._check()
        return self

    def _check(self) -> None:
        """Raise ValueError where settings of several sections cannot be used together."""
        if self.model.code is not None:
            own_function(self.model.code)
        if self.num_blocks is not None:
            self._check_first_trainable_block(self.num_blocks)
            self._check_modules(self.num_blocks)
        if problem := combine.conflict(self.fields(), self.facts(), fact_words()):
            raise ValueError(problem)
        self._check_parts()
        if self.num_blocks is not None and self.method.group(Phases).sequential:
            self._check_phases(int(self.num_modules))
        size, parts = self.optim.batch_size, max(self.run.num_replicas, self.optim.accumulate)
        if self.method.contrasts_labels and size // parts < 3:
            shared = f" in {parts} parts (--num_replicas, --accumulate)" if parts > 1 else ""
            raise ValueError(
                f"--batch_size {size}{shared}: a contrastive loss with labels is always 0 there, it needs at least 3 "
                "images, one to find and one to find it among"
            )

    def _check_first_trainable_block(self, count: int) -> None:
        first = self.method.first_trainable_block
        if not -count <= first < count:
            raise ValueError(
                f"--first_trainable_block {first}: {short_name(self.model.model)} has {count} blocks, "
                f"so it must lie in {-count} to {count - 1}"
            )

    def _check_modules(self, count: int) -> None:
        modules, overlap = self.method.group(Modules), self.method.group(Overlap).overlap
        first = self.method.first_trainable_block % count
        trained = f"{short_name(self.model.model)} has {count} blocks" + (f", {first} of them frozen" if first else "")
        if modules.num_modules is not None and modules.num_modules > count - first:
            raise ValueError(f"--num_modules {modules.num_modules}: {trained}, so it can be at most {count - first}")
        ends = {*modules.module_ends, count - 1}
        if min(ends) < first or max(ends) >= count:
            words = ",".join(map(str, modules.module_ends))
            raise ValueError(f"--module_ends {words}: {trained}, so they must lie in {first} to {count - 1}")
        num_modules = int(self.num_modules)
        if overlap >= num_modules:
            there = f"there are {num_modules} modules" if num_modules > 1 else "there is one module"
            raise ValueError(f"--overlap {overlap}: {there}, so it can be at most {num_modules - 1}")

    def _check_parts(self) -> None:
        size = self.optim.batch_size
        for name, count in (("num_replicas", self.run.num_replicas), ("accumulate", self.optim.accumulate)):
            if size % count or size < 2 * count:
                raise ValueError(
                    f"--{name} {count}: the parts of a batch are equal, each at least two images, but --batch_size is "
                    f"{size}"
                )

    def _check_phases(self, count: int) -> None:
        epochs = self.optim.epochs
        if epochs % count:
            below, above = epochs // count * count, -(-epochs // count) * count
            near = f"{below} or {above}" if below else above
            raise ValueError(
                f"--sequential shares --epochs {epochs} among {count} blocks in turn, so it must be a multiple of "
                f"{count}, as {near}"
            )
        if self.optim.warmup_epochs >= epochs // count:
            raise ValueError(
                f"--warmup_epochs {self.optim.warmup_epochs:g} must be below the {epochs // count} epochs that "
                "--sequential gives a block"
            )

    @property
    def num_blocks(self) -> int | None:
        """Blocks of the network; None where only building it shows how many (`with_blocks`)."""
        return self.model.num_blocks if self.model.is_built_in else self._counted

    def with_blocks(self, count: int) -> Args:
        """The same settings, once the network is built and has ``count`` blocks.

        Raises:
            UsageError: they do not suit so many blocks.
        """
        args = self.model_copy()
        args._counted = count
        try:
            args._check()
        except ValueError as error:
            raise UsageError(str(error)) from None
        return args

    @property
    def num_modules(self) -> float:
        """Blocks that are trained, or the modules to which they are joined; infinite where nobody knows yet."""
        modules, first, count = self.method.group(Modules), self.method.first_trainable_block, self.num_blocks
        if modules.num_modules is not None:
            return modules.num_modules
        if count is None:
            return -first if first < 0 else inf
        return len({*modules.module_ends, count - 1}) if modules.module_ends else count - first % count

    @property
    def num_skipped_blocks(self) -> int:
        """Blocks at the input of which only the pools stay."""
        method, count = self.method, self.num_blocks
        return method.first_trainable_block % count if method.skip_frozen_blocks and count is not None else 0

    def fields(self) -> dict[str, FieldInfo]:
        """Every setting of a run with this method, by the name of its flag."""
        return settings_of(self.method.method)

    def facts(self) -> dict[str, Any]:
        """The values that relations between settings are checked against: every setting's, and what several imply.

        ``built_in``, ``from_library``: where the network comes from; ``pads``: whether it pads; ``trained_modules``:
        how many learn; ``blocks_alone``: whether the rule's blocks learn on their own; ``classifier``: whether the
        classifier learns; ``decodes``: whether a task draws images; ``augments``: whether images are augmented. The
        task of ``--ssl`` counts as one with that weight, and ``spelled`` has how the user asked for it.
        """
        data, active = self.data, self.method.tasks.active
        tasks, chosen = active.values(), [active[SSL]] if SSL in active else []
        augmentations = (data.random_crop, data.random_resized_crop, data.random_horizontal_flip, data.random_erasing)
        return {name: value for _, section in self for name, value in section} | {
            "built_in": self.model.is_built_in,
            "pads": self.model.pads,
            "from_library": self.model.library is not None,
            "trained_modules": self.num_modules,
            "blocks_alone": self.method.BLOCKS_ALONE,
            "classifier": self.method.CLASSIFIES,
            "decodes": any(task.DECODES for task, _ in tasks),
            "augments": any(augmentations),
            "spelled": {task.weight_name(): f"ssl --ssl_task {task.task()}" for task, _ in chosen},
        } | {task.weight_name(): weight for task, weight in tasks}  # fmt: skip

    def warnings(self) -> list[str]:
        """Combinations that are allowed but probably a mistake, a line each."""
        padding = self.model.padding_mode if self.model.pads else ""
        found = [task.warning(padding) for task, _ in self.method.tasks.active.values()]
        return [line for line in found if line is not None]

    def with_data_in(self, data_dir: str) -> Args:
        """The same run where its data lie elsewhere."""
        return self.model_copy(update={"data": self.data.model_copy(update={"data_dir": data_dir})})

    def code(self) -> dict[str, Path]:
        """The files of the user's own that take part in the run, by setting."""
        files = {name: code_file(getattr(getattr(self, name), name)) for name in CODE_SETTINGS}
        return {name: file for name, file in files.items() if file is not None}

    @model_serializer(mode="wrap")
    def _with_digests(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All settings, and beside a file of the user's own the digest of its content, which is part of what is run."""
        sections: dict[str, Any] = handler(self)
        for name, file in self.code().items():
            sections[name] |= {digest_name(name): sha256(source_of(file))}
        return sections

    def labels(self) -> dict[str, str]:
        """Method, network and data set as logs, summaries and dashboards call them."""
        named = {"method": self.method.method, "model": self.model.model, "dataset": self.data.dataset}
        return {name: short_name(value) for name, value in named.items()}

    def flat(self) -> dict[str, Any]:
        """Every setting by the name of its flag, sections dissolved."""
        from flatten_dict import flatten

        return flatten(self.model_dump(mode="json"), reducer=lambda _, name: name)

    def effective(self) -> dict[str, Any]:
        """Those that have an effect beside the others: no ``momentum`` with Adam, nothing of a rule's unused parts."""
        fields, facts = self.fields(), self.facts()
        return {name: value for name, value in self.flat().items() if combine.has_effect(name, fields, facts)}


def sections_for(method: str) -> dict[str, type[Section]]:
    """The sections of a run with ``method``: its own takes the place of the general one."""
    own = [method] if code_file(method) else []
    return SECTIONS | {"method": method_sections(*own)[method]}


@cache
def settings_of(method: str) -> dict[str, FieldInfo]:
    """Every setting of a run with ``method``, by the name of its flag, with the rule's recipe for defaults."""
    sections = sections_for(method)
    fields = {name: field for section in sections.values() for name, field in fields_of(section).items()}
    return fields | {name: with_default(fields[name], value) for name, value in recipe_of(method).items()}


def recipe_of(method: str) -> Mapping[str, Any]:
    """The optimisation with which ``method`` is trained where the user does not say otherwise."""
    section = sections_for(method)["method"]
    assert issubclass(section, MethodArgs)
    return section.RECIPE


def build_args(values: Mapping[str, Any]) -> Args:
    """Validate flat settings.

    Args:
        values: settings by flag name, text or typed; only names that the chosen method has.

    Raises:
        pydantic.ValidationError: a value or a combination is impossible.
        KeyError: the method does not exist, or its file was not run (`sections.files.load_file`).
    """
    method = str(values.get("method", DEFAULT_METHOD))
    values = {**recipe_of(method), **values}
    return Args(**{name: build(section, values) for name, section in sections_for(method).items()})
