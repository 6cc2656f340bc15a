"""How layer-parallel training would scale: a discrete-event model fed with measured times, and checked against runs."""
