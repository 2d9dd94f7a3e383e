# The servers of one etcd cluster: which of them is asked now, and who must know when another one is.
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Told = Callable[[str], None]


class Servers:
    """`current`: the address of the server that is asked, as https://host:port. `failures`: how often one failed."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._at = 0
        self.failures = 0
        self._watching: dict[Told, str] = {}

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def current(self) -> str:
        return self._urls[self._at]

    def failed(self, url: str, words: str) -> None:
        """That server did not do what it was asked for: from now on the next is asked, and who watches it hears why.
        Many requests may fail together: the first one decides."""
        self.failures += 1
        if url == self.current:
            self._at = (self._at + 1) % len(self._urls)
        for told in [each for each, watched in self._watching.items() if watched == url]:
            told(words)

    @contextmanager
    def watched(self, url: str, told: Told) -> Iterator[None]:
        self._watching[told] = url
        try:
            yield
        finally:
            del self._watching[told]
