# Begins the audit log, if the configuration wants one.
from __future__ import annotations

from brokerd.config.settings import Configuration
from brokerd.core.ports import StoreUnavailable
from brokerd.edge.audit.files import FOLDER
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.store.store import SqliteStore
from brokerd.setup.installation import EXIT_UNAVAILABLE, CannotStart


async def audit_writer(configuration: Configuration, store: SqliteStore) -> AuditWriter | None:
    """None: the configuration turns the audit log off. Raises CannotStart."""
    settings = configuration.daemon
    if settings.audit == "off":
        return None
    try:
        memory = None if store.is_locked else await store.audit_memory()
    except StoreUnavailable as error:
        raise CannotStart(str(error), EXIT_UNAVAILABLE) from None
    return AuditWriter(store.path.parent / FOLDER, memory, settings.audit_size * 1024 * 1024, store.remember_audit)
