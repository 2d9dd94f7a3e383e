"""The machine and this process: clocks, randomness, the log, hardening."""
