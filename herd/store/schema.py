"""The database schema: its migrations in order, and how a connection is opened.

Knows tables, indexes and pragmas; not what the rows mean.
"""

import sqlite3
from pathlib import Path
from typing import Final

BUSY_MS: Final = 1000  # how long a statement waits for somebody else's lock before it counts as failed


class StoreRefused(RuntimeError):
    """The file is not this herd's to write; the text says why and what to do."""


class StoreNewer(StoreRefused):
    """The database was written by a newer herd; this one reads what it can and writes nothing."""


class StoreForeign(StoreRefused):
    """The file holds tables that no herd of this line made, such as another program's traces under the same name."""


# Each entry leads from one user_version to the next, in one transaction. Entries are added at the end, never changed.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # `decision` stands last, so that scans of the other columns need not touch the pages into which it overflows.
        """CREATE TABLE request_traces (
            id INTEGER PRIMARY KEY,
            request_id TEXT NOT NULL UNIQUE,
            trace_id TEXT NOT NULL,
            span_id TEXT NOT NULL,
            timestamp REAL NOT NULL,
            finished_at REAL NOT NULL,
            endpoint TEXT NOT NULL,
            original_format TEXT NOT NULL,
            model TEXT,
            original_model TEXT,
            node_id TEXT,
            score REAL,
            scores_breakdown TEXT,
            status TEXT NOT NULL,
            http_status INTEGER NOT NULL,
            error_type TEXT,
            error_message TEXT,
            finish_reason TEXT,
            stream INTEGER NOT NULL,
            latency_ms REAL NOT NULL,
            time_to_first_token_ms REAL,
            time_per_output_token_ms REAL,
            queue_ms REAL,
            decision_ms REAL,
            overhead_ms REAL,
            load_ms REAL,
            predicted_ttft_ms REAL,
            prompt_tokens INTEGER,
            completion_tokens INTEGER,
            tokens_source TEXT,
            retry_count INTEGER NOT NULL,
            fallback_used INTEGER NOT NULL,
            fallback_reason TEXT,
            excluded_nodes TEXT,
            tags TEXT,
            client_ip TEXT,
            api_key_id TEXT,
            decision TEXT
        )""",
        # A narrow copy of what lists, reports and scans ask for: they read this instead of the much wider rows.
        """CREATE INDEX traces_by_time ON request_traces (
            timestamp, status, model, node_id, latency_ms, time_to_first_token_ms, prompt_tokens, completion_tokens,
            retry_count, fallback_used, tags, request_id, error_message
        )""",
        # Grouped by node, or by node and model, without sorting; time order keeps new entries on few pages.
        """CREATE INDEX traces_by_node ON request_traces (
            node_id, model, timestamp, status, retry_count, time_to_first_token_ms
        )""",
        "CREATE INDEX traces_by_end ON request_traces (finished_at)",
        "CREATE INDEX traces_failed ON request_traces (timestamp) WHERE status = 'failed'",
        "CREATE INDEX traces_fallen_back ON request_traces (original_model, model) WHERE fallback_used = 1",
        "CREATE INDEX traces_latency ON request_traces (model, latency_ms) WHERE status = 'completed'",
        "CREATE INDEX traces_slowest ON request_traces (latency_ms) WHERE status = 'completed'",
        # By day and by hour of the day, in groups as they stand; `id` keeps the new entries of a group at its end.
        """CREATE INDEX traces_by_day ON request_traces (
            date(timestamp, 'unixepoch'), id, prompt_tokens, completion_tokens
        )""",
        """CREATE INDEX traces_by_hour ON request_traces (
            CAST((timestamp % 86400) / 3600 AS INTEGER), id, latency_ms
        )""",
        """CREATE TABLE request_attempts (
            request_id TEXT NOT NULL,
            number INTEGER NOT NULL,
            node_id TEXT NOT NULL,
            model TEXT NOT NULL,
            url TEXT NOT NULL,
            span_id TEXT NOT NULL,
            started_at REAL NOT NULL,
            ended_at REAL NOT NULL,
            http_status INTEGER,
            first_content_at REAL,
            error_type TEXT,
            error_message TEXT,
            reconnected INTEGER NOT NULL,
            PRIMARY KEY (request_id, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE node_samples (
            node_id TEXT NOT NULL,
            at REAL NOT NULL,
            status TEXT NOT NULL,
            cpu REAL NOT NULL,
            memory_used INTEGER NOT NULL,
            memory_total INTEGER NOT NULL,
            pressure TEXT NOT NULL,
            models_loaded TEXT NOT NULL,
            in_flight INTEGER NOT NULL,
            slots INTEGER NOT NULL,
            PRIMARY KEY (node_id, at)
        ) WITHOUT ROWID""",
        "CREATE INDEX samples_by_time ON node_samples (at)",
        """CREATE TABLE fleet_events (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            node_id TEXT,
            model TEXT,
            data TEXT NOT NULL
        )""",
        "CREATE INDEX events_by_time ON fleet_events (at)",
        "CREATE INDEX events_by_kind ON fleet_events (kind, at)",
    ),
    (
        # What the rows of an hour or a day came to, see `rollups`; empty where a kind does not tell apart. Blobs are
        # `histogram`'s. By tag before start: what one tag came to lies together.
        """CREATE TABLE rollups (
            kind INTEGER NOT NULL,
            span INTEGER NOT NULL,
            tag TEXT NOT NULL,
            start INTEGER NOT NULL,
            node_id TEXT NOT NULL,
            model TEXT NOT NULL,
            first_seen REAL NOT NULL,
            last_seen REAL NOT NULL,
            completed_count INTEGER NOT NULL,
            failed_count INTEGER NOT NULL,
            incomplete_count INTEGER NOT NULL,
            client_disconnected_count INTEGER NOT NULL,
            rejected_count INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            retry_count INTEGER NOT NULL,
            fallback_count INTEGER NOT NULL,
            cold_load_count INTEGER NOT NULL,
            cold_load_us INTEGER NOT NULL,
            latency_count INTEGER NOT NULL,
            latency_us INTEGER NOT NULL,
            latency_spread BLOB,
            ttft_count INTEGER NOT NULL,
            ttft_us INTEGER NOT NULL,
            ttft_spread BLOB,
            time_per_output_token_count INTEGER NOT NULL,
            time_per_output_token_us INTEGER NOT NULL,
            time_per_output_token_spread BLOB,
            queue_count INTEGER NOT NULL,
            queue_us INTEGER NOT NULL,
            queue_spread BLOB,
            overhead_count INTEGER NOT NULL,
            overhead_us INTEGER NOT NULL,
            overhead_spread BLOB,
            PRIMARY KEY (kind, span, tag, start, node_id, model)
        ) WITHOUT ROWID""",
        "CREATE INDEX rollups_by_start ON rollups (start, span, kind)",
        """CREATE TABLE rollup_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            format INTEGER NOT NULL,
            rolled_through INTEGER NOT NULL
        )""",
    ),
    (
        # Findings of the health checks, one row from when each was first seen until it was over.
        """CREATE TABLE health_findings (
            id TEXT PRIMARY KEY,
            check_id TEXT NOT NULL,
            severity TEXT NOT NULL,
            node_id TEXT,
            model TEXT,
            title TEXT NOT NULL,
            description TEXT NOT NULL,
            fix TEXT NOT NULL,
            data TEXT NOT NULL,
            first_seen REAL NOT NULL,
            last_seen REAL NOT NULL,
            resolved_at REAL,
            acknowledged_at REAL,
            note TEXT,
            silenced_until REAL,
            alerted INTEGER NOT NULL
        )""",
        "CREATE INDEX findings_by_time ON health_findings (last_seen)",
        "CREATE INDEX findings_open ON health_findings (last_seen) WHERE resolved_at IS NULL",
        # What the checks ask of the requests that were not completed, which are few.
        """CREATE INDEX traces_trouble ON request_traces (timestamp, status, error_type, node_id, model)
            WHERE status <> 'completed'""",
    ),
    (
        # The nodes that were not struck off, each as of its last heartbeat: what a restarted router begins with.
        """CREATE TABLE nodes (
            node_id TEXT PRIMARY KEY,
            heartbeat TEXT NOT NULL,
            last_seen REAL NOT NULL,
            left INTEGER NOT NULL,
            drained INTEGER NOT NULL
        ) WITHOUT ROWID""",
    ),
    (
        # What a search looks for in every row, and finds in few: a trace's requests, and the words of errors.
        "CREATE INDEX traces_by_trace ON request_traces (trace_id)",
        """CREATE INDEX traces_with_error ON request_traces (timestamp, error_message)
            WHERE error_message IS NOT NULL""",
    ),
    (
        # Of the prompt's tokens those that the engine had in its cache, and of the answer's those that were thoughts.
        "ALTER TABLE request_traces ADD COLUMN cached_tokens INTEGER",
        "ALTER TABLE request_traces ADD COLUMN reasoning_tokens INTEGER",
    ),
    (
        # Each part of a prediction beside what was seen; those of the queue and the load were there before.
        "ALTER TABLE request_traces ADD COLUMN prefill_ms REAL",
        "ALTER TABLE request_traces ADD COLUMN decode_ms REAL",
        "ALTER TABLE request_traces ADD COLUMN predicted_queue_ms REAL",
        "ALTER TABLE request_traces ADD COLUMN predicted_load_ms REAL",
        "ALTER TABLE request_traces ADD COLUMN predicted_prefill_ms REAL",
        "ALTER TABLE request_traces ADD COLUMN predicted_decode_ms REAL",
    ),
)
LATEST: Final = len(MIGRATIONS)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode to a database of the latest version, made or migrated as needed.

    Raises StoreRefused for a newer or foreign database, OSError or sqlite3.Error where there can be none.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    try:
        refuse_newer(connection)  # before anything that writes, the journal mode included
        refuse_foreign(connection)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect on a new file only
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA secure_delete = FAST")  # zeroing freed pages would double what a sweep writes
        migrate(connection)
    except (sqlite3.Error, StoreRefused):
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """A connection that cannot write; None where nothing was stored yet. Raises sqlite3.Error."""
    if not path.is_file():
        return None
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,  # used by one thread, closed by another
    )
    try:
        connection.execute("PRAGMA query_only = 1")
        empty = version_of(connection) == 0
    except sqlite3.Error:
        connection.close()
        raise
    if empty:
        connection.close()
        return None
    connection.row_factory = sqlite3.Row
    return connection


def empty() -> sqlite3.Connection:
    """A database in memory of the latest version, in which nothing was stored."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    connection.row_factory = sqlite3.Row
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The number of migrations that the database has seen."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def refuse_newer(connection: sqlite3.Connection) -> None:
    """Raise StoreNewer where the database is of a version that this herd does not know."""
    if (found := version_of(connection)) > LATEST:
        raise StoreNewer(
            f"the database has schema version {found}, this herd knows {LATEST}: it is left untouched; "
            "run the newer herd, or move the file away"
        )


def refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise StoreForeign where there are tables, but none of our migrations made them."""
    if version_of(connection) == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise StoreForeign(
            "the database was made by another program: it is left untouched; move the file away, and a new one is made"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Take the database to the latest version; what a step began is undone if it cannot be ended."""
    while version_of(connection) < LATEST:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = version_of(connection)  # again: another process may have been faster
            for statement in MIGRATIONS[version] if version < LATEST else ():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {min(version + 1, LATEST)}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            connection.rollback()
            raise
