"""Layer-parallel training: blocks that learn on their own, trained at the same time, in threads or processes."""
