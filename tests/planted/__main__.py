"""Plants faults in a copy of the project, one at a time, and runs the tests that should notice.

``python -m tests.planted [RULE...]`` reads ``tests/planted/RULE.yaml``, all of them without an argument: lists of
``{file, old, new, tests, why}``. ``old`` stands exactly once in ``file``; ``tests`` are arguments of pytest. A fault
is killed if these tests pass without it and a test fails with it. Exit code: 0 if all are killed, 1 if one survives or
breaks the code so that no test runs, 2 if a list is wrong.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
PASSED, FAILED = 0, 1  # exit codes of pytest; others mean that the tests did not run


class Fault(NamedTuple):
    """One line of a list."""

    file: str
    old: str
    new: str
    tests: str
    why: str


def read(path: Path) -> list[Fault]:
    """The faults of one list; TypeError if an entry has other keys."""
    return [Fault(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def problem(fault: Fault, root: Path) -> str | None:
    """What is wrong with a fault, in one line; None if it can be planted."""
    if not (root / fault.file).is_file():
        return f"{fault.file} is no file"
    count = (root / fault.file).read_text(encoding="utf-8").count(fault.old)
    if count != 1:
        return f"{fault.file} has {count} times: {fault.old}"
    missing = [name for name in shlex.split(fault.tests) if ".py" in name and not (root / name.split("::")[0]).exists()]
    return f"no such tests: {' '.join(missing)}" if missing else None


def copied(root: Path, target: Path) -> None:
    """Copy what git tracks or would track, as it lies in the working tree."""
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)


def run_tests(copy: Path, tests: str) -> int:
    """The exit code of pytest there, in one process with one thread."""
    # Without files of bytecode: a fault of the same length within one second would not be seen.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run([*command, *shlex.split(tests)], cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (PASSED, FAILED):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode


def verdict(fault: Fault, copy: Path) -> str:
    """``killed``, ``survived`` or ``broken``, if the tests could not even be collected; the copy is mended."""
    path = copy / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return {PASSED: "survived", FAILED: "killed"}.get(run_tests(copy, fault.tests), "broken")
    finally:
        path.write_text(text, encoding="utf-8")


def main(rules: list[str], lists: Path = ROOT / "tests" / "planted", root: Path = ROOT) -> int:
    """Plant the faults of some lists, print a line for each, and return the exit code."""
    paths = [lists / f"{rule}.yaml" for rule in rules] or sorted(lists.glob("*.yaml"))
    if missing := [path.stem for path in paths if not path.is_file()]:
        print(f"no list for {' '.join(missing)}", file=sys.stderr)
        return 2
    faults = [(path.stem, fault) for path in paths for fault in read(path)]
    if problems := [f"{rule}: {text}" for rule, fault in faults if (text := problem(fault, root))]:
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        copied(root, Path(folder))
        for tests in dict.fromkeys(fault.tests for _, fault in faults):
            if run_tests(Path(folder), tests) != PASSED:
                print(f"these tests fail without a fault: {tests}", file=sys.stderr)
                return 2
        for rule, fault in faults:
            start = time.perf_counter()
            verdicts.append(verdict(fault, Path(folder)))
            print(f"{verdicts[-1]:9} {time.perf_counter() - start:5.1f} s  {rule:12} {fault.why}", flush=True)
    print(f"{verdicts.count('killed')} of {len(verdicts)} killed")
    return int(set(verdicts) != {"killed"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
