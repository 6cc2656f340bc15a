"""The run: Lightning's module and trainer, the run folder, checkpoints, logging. Knows no method and no network by name."""
