"""Writes settings into `config.toml` and leaves everything else in it unchanged, including comments.

The file is replaced atomically, and only its owner may read it, since it can hold secret URLs.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from herd.settings.table import Value


class NotKept(RuntimeError):
    """The file could not be written; the text says why, and the file is unchanged."""


def keep(path: Path, values: Mapping[str, Value]) -> None:
    """Set these settings in the file, which is created if missing. Raises NotKept."""
    target = path.resolve()  # a link to a file that is kept elsewhere stays a link
    try:
        text = _with(target.read_bytes().decode() if target.exists() else "", values)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(target, text.encode())
    except (OSError, UnicodeError, TOMLKitError) as error:
        raise NotKept(f"{path} cannot be written: {error}") from error


def _with(text: str, values: Mapping[str, Value]) -> str:
    document = tomlkit.parse(text)
    for name, value in values.items():
        document[name] = value
    return tomlkit.dumps(document)


def _replace(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".config-", suffix=".toml", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name must outlive a power cut, too
    finally:
        os.close(folder)
