"""What runs beside requests: pulls, preloads, what the store remembers of nodes."""
