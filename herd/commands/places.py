"""Where a command looks: which data directory, which router. Knows the options and the environment, opens nothing."""

import os
from pathlib import Path

from herd.settings.table import BY_NAME


def data_dir(given: str | None) -> Path:
    """The data directory: `--data-dir`, else HERD_DATA_DIR, else the setting's default."""
    return Path(given or os.environ.get("HERD_DATA_DIR") or str(BY_NAME["data_dir"].default)).expanduser()


def named_url(given: str | None) -> str | None:
    """The router that the user named, by `--url` or HERD_URL; None where there is none."""
    text = (given or os.environ.get("HERD_URL") or "").strip().rstrip("/")
    return (text if "://" in text else f"http://{text}") if text else None


def router_url(given: str | None) -> str:
    """The router to ask: the named one, else the one on this machine, at HERD_PORT or the default port."""
    return named_url(given) or f"http://127.0.0.1:{os.environ.get('HERD_PORT') or BY_NAME['port'].default}"
