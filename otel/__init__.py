"""What watches herd from outside: rules for Prometheus made from tables, and the collector's and Tempo's settings."""
