"""Writes settings into `config.toml` and leaves everything else in it unchanged, including comments.

The file is replaced atomically, and only its owner may read it, since it can hold secret URLs.
"""

from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from herd.settings.table import Value
from herd.wire.files import write_alone


class NotKept(RuntimeError):
    """The file could not be written; the text says why, and the file is unchanged."""


def keep(path: Path, values: Mapping[str, Value]) -> None:
    """Set these settings in the file, which is created if missing. Raises NotKept."""
    target = path.resolve()  # a link to a file that is kept elsewhere stays a link
    try:
        text = _with(target.read_bytes().decode() if target.exists() else "", values)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_alone(target, text.encode())
    except (OSError, UnicodeError, TOMLKitError) as error:
        raise NotKept(f"{path} cannot be written: {error}") from error


def _with(text: str, values: Mapping[str, Value]) -> str:
    document = tomlkit.parse(text)
    for name, value in values.items():
        document[name] = value
    return tomlkit.dumps(document)
