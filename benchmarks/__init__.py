"""Ours against peers in one run, as ratios. Each module is run by ``python -m benchmarks.NAME``."""
