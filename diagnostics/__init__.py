"""Read-only observers of a method during a run; weights, buffers, gradients and random state stay unchanged."""
