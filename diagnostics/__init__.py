"""Read-only observers of a method: they leave weights, statistics, gradients and random state as they were."""
