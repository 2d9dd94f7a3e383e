"""Strict servers for the recipes whose real one cannot be had here: each written from its vendor's document, which the
head of its file names. Real servers: tests/real/servers."""

from collections.abc import Mapping
from typing import Any

from tests.servers.gallery.aws import AwsSts
from tests.servers.gallery.directus import Directus
from tests.servers.gallery.elasticsearch import Elasticsearch
from tests.servers.gallery.github import GitHub
from tests.servers.gallery.gitlab import GitLab
from tests.servers.gallery.kubernetes import Kubernetes
from tests.servers.gallery.matrix import Matrix
from tests.servers.gallery.registry import Registry
from tests.servers.gallery.vault import Vault
from tests.servers.gallery.vault_database import VaultDatabase
from tests.servers.provider import Provider

GALLERY: Mapping[str, type[Provider[Any]]] = {
    each.name: each
    for each in (AwsSts, Directus, Elasticsearch, GitHub, GitLab, Kubernetes, Matrix, Registry, Vault, VaultDatabase)
}

__all__ = [
    "GALLERY",
    "AwsSts",
    "Directus",
    "Elasticsearch",
    "GitHub",
    "GitLab",
    "Kubernetes",
    "Matrix",
    "Registry",
    "Vault",
    "VaultDatabase",
]
