"""The files and signals of a run: folder, logs, checkpoints, terminal, W&B, provenance."""
