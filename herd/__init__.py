"""Herd: one address in front of a fleet of local LLM servers."""

__version__ = "0.1.0"
