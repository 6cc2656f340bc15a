"""The run: Lightning's module and trainer, the run folder, checkpoints, logging. Knows no method by name."""
