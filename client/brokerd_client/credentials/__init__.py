"""Programs that other programs run to get a credential: one module for each protocol, and asking.py for all of them."""
