"""One conversation with a provider: its steps, its outcomes, what is signed and what may be shown of it."""
