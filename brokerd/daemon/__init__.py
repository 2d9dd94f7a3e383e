"""The program brokerd: builds and joins all objects."""
