"""Strict servers for the recipes whose real one cannot be had here: each written from its vendor's document, which the
head of its file names. Real servers: tests/realservers."""

from collections.abc import Mapping
from typing import Any

from tests.providers.gallery.directus import Directus
from tests.providers.gallery.elasticsearch import Elasticsearch
from tests.providers.gallery.github import GitHub
from tests.providers.gallery.gitlab import GitLab
from tests.providers.gallery.kubernetes import Kubernetes
from tests.providers.gallery.matrix import Matrix
from tests.providers.gallery.registry import Registry
from tests.providers.gallery.vault import Vault
from tests.providers.provider import Provider

GALLERY: Mapping[str, type[Provider[Any]]] = {
    each.name: each for each in (Directus, Elasticsearch, GitHub, GitLab, Kubernetes, Matrix, Registry, Vault)
}

__all__ = [
    "GALLERY",
    "Directus",
    "Elasticsearch",
    "GitHub",
    "GitLab",
    "Kubernetes",
    "Matrix",
    "Registry",
    "Vault",
]
