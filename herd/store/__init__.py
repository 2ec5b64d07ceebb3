"""The trace store: SQLite with one writer and read-only readers; the only package that imports sqlite3."""
