"""Tests of the agent beside each engine."""
