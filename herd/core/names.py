"""The spelling of models' names."""


def canonical_name(name: str) -> str:
    """The one spelling of a model's name: `m` is `m:latest`, whatever stands before the last slash."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
