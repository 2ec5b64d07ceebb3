"""The fleet as it is now: one cell that holds it, and one keeper that acts on what changes in it."""
