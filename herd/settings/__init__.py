"""The settings: their table, where values come from, the file that keeps them, and changes at run time."""
