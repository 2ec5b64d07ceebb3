#!/usr/bin/env bash
# Builds the OpenTelemetry collector that docker-compose.yml pins, with the parts that otel/collector.yaml names and no
# others, from the Go modules of the project itself. What is already there in the wanted version is left alone.
#
#   build_collector.sh [FOLDER]       FOLDER defaults to .engines in the project
#
# Leaves FOLDER/bin/otelcol. Needs Go; a few minutes on one core.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's|.*image: otel/opentelemetry-collector-contrib:||p' "$root/docker-compose.yml")
cache=${1:-$root/.engines}
mkdir -p "$cache/bin"
cache=$(cd "$cache" && pwd)
work=$cache/unfinished/otelcol

[ -x "$cache/bin/otelcol" ] && [ "$(cat "$cache/bin/otelcol.version" 2>/dev/null)" = "$version" ] && exit 0
command -v go >/dev/null || { echo "build_collector: Go is missing" >&2; exit 2; }
rm -rf "$work"
mkdir -p "$work"
cat >"$work/builder.yaml" <<YAML
dist: {name: otelcol, output_path: $work/source, version: $version}
receivers:
  - {gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v$version}
processors:
  - {gomod: go.opentelemetry.io/collector/processor/memorylimiterprocessor v$version}
  - {gomod: go.opentelemetry.io/collector/processor/batchprocessor v$version}
exporters:
  - {gomod: go.opentelemetry.io/collector/exporter/otlphttpexporter v$version}
  - {gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter v$version}
extensions:
  - {gomod: github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension v$version}
YAML
echo "build_collector: building the collector $version"
{
  GOBIN="$work" go install "go.opentelemetry.io/collector/cmd/builder@v$version" &&
    CGO_ENABLED=0 "$work/builder" --config "$work/builder.yaml"
} >"$work/log.txt" 2>&1 || { tail -n 30 "$work/log.txt" >&2; exit 1; }
mv -f "$work/source/otelcol" "$cache/bin/otelcol"
echo "$version" >"$cache/bin/otelcol.version"
