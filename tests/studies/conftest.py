"""Runs to study."""

from tests.engine.conftest import run

__all__ = ["run"]
