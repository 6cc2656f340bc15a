"""Training: the Lightning module and its trainer, steps, layouts, and the files of a run. Names no method."""
