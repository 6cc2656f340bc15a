"""Training steps: optimiser, schedule, metrics, and the layouts that take all steps in one place, eager or recorded."""
