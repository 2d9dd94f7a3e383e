"""The outside world, one file for each part of it. Foreign exceptions are translated here and seen nowhere else."""
