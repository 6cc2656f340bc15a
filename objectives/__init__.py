"""Pure functions from tensors to a scalar loss. No parameters, no global randomness."""
