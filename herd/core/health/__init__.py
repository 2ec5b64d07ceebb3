"""Whether the fleet is well: a report of facts, checks over it, and the findings' history."""
