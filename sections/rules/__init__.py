"""The settings of training rules, one file each, named as in ``methods/``."""
