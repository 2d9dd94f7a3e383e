"""The use cases: grants that are kept fresh, logins, revocations, reloads, keys."""
