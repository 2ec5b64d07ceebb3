"""Where spans are exported, if at all: the setting, else the standard `OTEL_*` variables.

It knows no OpenTelemetry, so that a router without a collector does not load it.
"""

import os
from collections.abc import Sequence
from typing import Final

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def target_of(endpoint: str) -> str:
    """The endpoint for spans: `endpoint` (base URL), else from the variables; empty if there is none."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    elsewhere = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return "" if disabled or elsewhere else endpoint.strip() or variable(ENDPOINT_VARIABLES)


def variable(names: Sequence[str]) -> str:
    """The first of these variables that is set, stripped; empty if none is."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
