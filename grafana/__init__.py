"""Grafana dashboards as code: tables of panels, written as the JSON that Grafana reads."""
