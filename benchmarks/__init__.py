"""How the figures of the documentation are measured; run from the project's folder, `python -m benchmarks.…`."""
