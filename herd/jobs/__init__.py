"""Background jobs: pulls, preloads, health checks, the stored state of nodes."""
