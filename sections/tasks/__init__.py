"""The settings of auxiliary tasks, one file each, named as in ``tasks/``."""
