"""What was served, kept in SQLite: one writer, read-only readers; the only package that knows sqlite3."""
