"""Fleet health: a report of facts, the checks over it, and the history of findings."""
