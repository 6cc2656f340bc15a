"""Settings of generated data sets, each in a file with the name of its generator in ``datamodules/theory``."""
