"""The records of a request, made from events; the only package that knows Prometheus and OpenTelemetry."""
