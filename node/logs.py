"""The agent's log: lines for people on stderr, the same records as JSON lines in `<data-dir>/logs/herd-node.jsonl`.

A record's message is its `event`; what varies goes into fields, so no foreign text becomes part of an event's name.
"""

import json
import logging
import logging.handlers
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILES_KEPT = 30
CHATTY = ("httpx", "httpcore", "urllib3", "zeroconf", "asyncio")  # they log every request and packet
PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f]+")

logger = logging.getLogger(__name__)


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call: `logger.info("Router found", extra=fields(url=url))`."""
    return {"fields": values}


class JsonLines(logging.Formatter):
    """One JSON object a line with Python's default separators, ASCII only: the operator's greps rely on both."""

    def format(self, record: logging.LogRecord) -> str:
        """timestamp (ISO 8601, UTC), level, logger, event, then the fields, which cannot replace those four."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        head = {
            "timestamp": at.replace("+00:00", "Z"),
            "level": record.levelname.upper(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        document = {**head, **{key: value for key, value in _fields(record).items() if key not in head}}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class Readable(logging.Formatter):
    """Local time, level, event, then `key=value`; anything odd in a value is quoted, so one record stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        pairs = [f"{key}={_readable(value)}" for key, value in _fields(record).items()]
        line = " ".join([at, f"{record.levelname:<7}", record.getMessage(), *pairs])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = getattr(record, "fields", {})
    return found if isinstance(found, dict) else {}


def _readable(value: Any) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


def start_logging(level: str, data_dir: Path) -> None:
    """Send all records to stderr and to the file; a file that cannot be opened is a warning, no reason to stop."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    people = logging.StreamHandler(sys.stderr)
    people.setFormatter(Readable())
    root.addHandler(people)
    try:
        root.addHandler(_file_handler(data_dir / "logs" / "herd-node.jsonl"))
    except OSError as error:
        logger.warning("No log file: it cannot be opened", extra=fields(data_dir=data_dir, error=error))


def _file_handler(path: Path) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.TimedRotatingFileHandler(
        path, when="midnight", utc=True, backupCount=FILES_KEPT, encoding="ascii"
    )
    handler.setFormatter(JsonLines())
    return handler
