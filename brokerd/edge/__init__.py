"""The outside world, one folder for each part. Exceptions of libraries are translated here and seen nowhere else."""
