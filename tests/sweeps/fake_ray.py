"""Stands in for the module `ray`: a cluster on paper, whose workers are objects of this process."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any


class RayError(Exception):
    cause: Exception


class RayActorError(RayError):
    pass


class ActorUnavailableError(RayActorError):
    pass


class OutOfMemoryError(RayError):
    pass


class FakeActor:
    """A worker; ``actor.poll.remote()`` calls at once, and what it returns or raises is the reference."""

    def __init__(self, ray: FakeRay, worker: Any) -> None:
        self.ray, self.worker, self.is_dead = ray, worker, False

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *words: self._call(getattr(self.worker, name), *words))

    def _call(self, method: Callable[..., Any], *words: Any) -> Any:
        if self.is_dead:
            return RayActorError("The actor died unexpectedly.\n\tclass_name: Worker")
        try:
            answer = method(*words)
        except OSError as error:
            failure = RayError("a traceback")
            failure.cause = error
            return failure
        if self.ray.errors and self.ray.can_fail():
            error = self.ray.errors.pop()
            self.is_dead = not isinstance(error, ActorUnavailableError)
            if self.is_dead:
                self.worker.terminate()  # as the kernel does
            return error
        return answer


class FakeRay(ModuleType):
    """The module.

    Attributes:
        errors: taken from the end, one for each call of a worker for which `can_fail` says so.
        options: what every actor was started with.
    """

    def __init__(self, nodes: list[dict[str, float]]) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.exceptions = SimpleNamespace(
            RayError=RayError, RayActorError=RayActorError, ActorUnavailableError=ActorUnavailableError,
            OutOfMemoryError=OutOfMemoryError,
        )  # fmt: skip
        self._nodes = nodes
        self.errors: list[RayError] = []
        self.can_fail: Callable[[], bool] = lambda: True
        self.options: list[dict[str, float]] = []
        self.inits: list[tuple[str, set[str]]] = []
        self.is_up = False

    def init(self, address: str, **settings: Any) -> None:
        if address.startswith("nobody"):
            raise ConnectionError("Could not connect.\nMore of it")
        self.inits.append((address, set(settings)))
        self.is_up = True

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 640.0}}
        return [lost, *({"Alive": True, "Resources": resources} for resources in self._nodes)]

    def remote(self, worker: type) -> SimpleNamespace:
        def options(**given: float) -> SimpleNamespace:
            self.options.append(given)
            return SimpleNamespace(remote=lambda: FakeActor(self, worker()))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(self, actor: FakeActor) -> None:
        actor.is_dead = True

    def shutdown(self) -> None:
        self.is_up = False
