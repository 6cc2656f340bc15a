"""Whether torch is there and new enough, asked before it is imported: an older one fails somewhere in the middle."""

from __future__ import annotations

import re
from importlib import metadata

from utils import UserError

OLDEST_TORCH = (2, 11)  # pyproject.toml says the same to pip


def check_torch() -> None:
    """Do nothing if torch can be used.

    Raises:
        UserError: it is missing, or older than `OLDEST_TORCH`.
    """
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = ""
    # The first two numbers only: builds of vendors are named 2.11.0a0+1a2b3c, which comes before 2.11.0 in the order
    # of versions and has what 2.11 has.
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_TORCH:
        found = f"torch {version} is too old" if version else "torch is not installed"
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise UserError(f"{found}: {oldest} or newer is needed; pip install -r requirements.txt brings what was tested")
