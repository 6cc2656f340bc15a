"""Layer-parallel training: the blocks of a local method trained at the same time, in threads, processes or streams."""
