"""Prior-data fitted networks: a transformer trained on draws of a prior, which conditions it in one pass."""
