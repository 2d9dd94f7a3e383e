"""A deterministic simulation of brokerd: one seed drives a world of faults, and the laws are checked all the while."""
