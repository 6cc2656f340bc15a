"""Runs with code of the user's own."""

from tests.engine.conftest import run, same

__all__ = ["run", "same"]
