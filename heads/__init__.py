"""Auxiliary heads: small networks on a block's output that its local loss needs, used in training only."""
