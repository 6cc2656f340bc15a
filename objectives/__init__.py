"""Loss functions: from tensors to a scalar, without parameters and without random numbers."""
