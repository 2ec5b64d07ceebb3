"""Do the four records agree? Each read as the same values, and compared."""
