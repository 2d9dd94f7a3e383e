"""Servers that unmodified clients use with a token: git, a container registry, a package index, a cluster, AWS. Each
demands a living access token of one of our providers, and keeps what was shown to it."""
