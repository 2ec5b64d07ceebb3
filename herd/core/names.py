"""The spelling of models' names."""


def canonical_name(name: str) -> str:
    """The one spelling of a model's name: `m:latest` for `m`, `library/m` and `https://registry.ollama.ai/library/m`.

    As Ollama's own `types/model` has it: a scheme says nothing, the registry and the namespace `library` are implied
    where they are left out, and their case does not matter. Another host, such as hf.co, is part of the name.
    """
    if "/" in name:
        name = name.partition("://")[2] or name
        parts = name.split("/")
        for implied, length in (("registry.ollama.ai", 3), ("library", 2)):
            if len(parts) == length and parts[0].lower() == implied and parts[-1].partition(":")[0]:
                parts = parts[1:]
        name = "/".join(parts)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
