# brokerctl for the server, with all that its commands import at hand: a child begins at once.
import pkgutil
from importlib import import_module

import brokerd
from brokerd.ctl import main

__all__ = ["main"]

for module in pkgutil.walk_packages(brokerd.__path__, "brokerd."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
