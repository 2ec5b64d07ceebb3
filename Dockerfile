# Router and agent in one image; the compose file says which of the two (or which simulated node) a container is.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN python -m venv /opt/build && python -m venv /opt/herd
# What is installed is pinned, with its hashes; `make lock` writes both files.
COPY requirements-build.lock requirements.lock ./
RUN /opt/build/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements-build.lock \
    && /opt/herd/bin/pip install --no-cache-dir --no-compile --only-binary :all: --require-hashes -r requirements.lock \
    # A quarter of the size is what only a debugger, a compiler, a type checker or a package's own tests read.
    && find /opt/herd/lib -name '*.so' -exec strip --strip-unneeded {} + \
    && find /opt/herd/lib -type f -regextype egrep -regex '.*/tests/.*|.*\.(pyi|pyx|pxd|pxi|c|h|proto)' -delete
COPY pyproject.toml README.md LICENSE ./
COPY herd ./herd
COPY node ./node
COPY otel ./otel
RUN /opt/build/bin/python -m hatchling build -t wheel \
    && /opt/herd/bin/pip install --no-cache-dir --no-compile --no-deps dist/*.whl \
    && /opt/herd/bin/pip uninstall --yes pip setuptools \
    && find /opt/herd -name __pycache__ -prune -exec rm -rf {} + \
    # A container that may not write would compile all of it at every start, for seconds.
    && /opt/herd/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/herd/lib

FROM python:3.11-slim-bookworm
# 10001 is also who the collector and Tempo are, so that all of them can share what a volume's first user has made.
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/herd herd \
    && install -d -o herd -g herd -m 0700 /data \
    && install -d -o herd -g herd -m 0755 /data/prometheus \
    && install -d -o herd -g herd -m 0755 /spans
COPY --from=build /opt/herd /opt/herd
ENV PATH=/opt/herd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HERD_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 11435
# The agent and the simulated nodes have their own check, or none, in the compose file.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:11435/readyz', timeout=2)"]
CMD ["herd"]
