"""Runs with code of the user's own."""

from tests.engine.conftest import run, same
from tests.sweeps.conftest import sweeper

__all__ = ["run", "same", "sweeper"]
