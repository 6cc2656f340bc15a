"""What a run writes and hears: its folder, log lines, checkpoints, the console, W&B, and signals."""
