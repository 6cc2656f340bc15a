"""Stands in for main.py: takes the same flags, writes the same run folder, and its accuracy is a formula.

``learning_rate`` decides: accuracy grows by epoch towards ``100 * (1 - learning_rate)``; above 0.9 the run fails.
It waits as long as there is a file ``hold``, and like a run it refuses a folder in which another process trains.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
    if "resume" in flags:
        folder = Path(flags["resume"])
        flags = json.loads((folder / "flags.json").read_text()) | flags
    else:
        folder = Path(flags["path"]) / f"2026-01-01_00-00-00_{flags['name']}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "flags.json").write_text(json.dumps(flags))
    lock = (folder / "command.txt").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (Path(flags["path"]) / "starts.txt").open("a") as starts:
        starts.write(f"{flags['name']} {'resumed' if 'resume' in flags else 'new'} {flags['learning_rate']}\n")
    rate, metrics = float(flags["learning_rate"]), folder / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for epoch in range(done + 1, int(flags["epochs"]) + 1):
        time.sleep(float(os.environ.get("FAKE_EPOCH_S", "0")))
        while not stopped and os.path.exists("hold"):
            time.sleep(0.02)
        if stopped:
            return 143
        if rate > 0.9:
            print("2026-01-01 | some line of the log")
            print("main.py: error: the loss is not finite; lower --learning_rate", file=sys.stderr)
            return 1
        line = {"kind": "epoch", "step": epoch, "epoch": epoch, "test/accuracy": 100 * (1 - rate) * epoch / (epoch + 1)}
        if "sequential" in flags and 3 * epoch <= 2 * int(flags["epochs"]):  # three blocks, the last has begun late
            del line["test/accuracy"]
        with metrics.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "summary.json").write_text(json.dumps({"status": "done"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
