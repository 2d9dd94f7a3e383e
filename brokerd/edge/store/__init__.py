"""The store: a SQLite file of sealed records, its keys, its backups."""
