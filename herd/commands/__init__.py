"""The commands of `herd`, one file each: they ask a router or read its files, and show what they found.

`herd.cli` imports a command's file only when that command is given, so none of them slows the others.
"""


class CommandError(Exception):
    """A command cannot do its work; the text is one sentence with what to do about it."""


class WrongUse(CommandError):
    """The command line says something that cannot be meant."""
