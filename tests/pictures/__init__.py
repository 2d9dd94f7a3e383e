"""Makes the pictures of the page in docs/pictures (make pictures): a real daemon, on a clock that makes haste."""
