"""The record of a grant: what brokerd keeps about it, and how each event changes it."""
