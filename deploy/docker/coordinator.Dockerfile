# The coordinator. It holds common/ and server/ alone: nothing that reads a recording is in it.
#
#     docker build -f deploy/docker/coordinator.Dockerfile -t partbook/coordinator:0.1.0 .
#
# The base is named by its tag, so that a build here and now gets the newest fixes. Where the same build must come out
# again, name it by digest: --build-arg BASE=python:3.11-slim@sha256:… (`docker buildx imagetools inspect
# python:3.11-slim` says which). Packages come from wherever pip looks; --build-arg PIP_INDEX_URL=… names a mirror.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml constraints.txt build_protos.py LICENSE NOTICE README.md ./
COPY deploy/__init__.py deploy/role_wheel.py deploy/
COPY common common
COPY server server
RUN python -m venv /build && /build/bin/pip install --constraint constraints.txt hatchling grpcio-tools
RUN /build/bin/python -m deploy.role_wheel coordinator --out /wheels
# Without pip of its own: it is filled from outside, and nothing can be installed into it later.
RUN python -m venv --without-pip /opt/partbook \
    && /build/bin/pip --python /opt/partbook/bin/python install --constraint constraints.txt "$(echo /wheels/*.whl)[coordinator]"
RUN /opt/partbook/bin/python -I -c "from importlib.util import find_spec as f; held = [m for m in 'partbook.node partbook.custodian partbook.vault partbook.training partbook.simulation'.split() if f(m)]; assert not held, held"
RUN /opt/partbook/bin/partbook coordinator --help

FROM ${BASE}
LABEL org.opencontainers.image.title="Partbook coordinator" \
      org.opencontainers.image.description="Plans rounds, adds up what it cannot read, releases the model. Members reach port 9443." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN pip uninstall --yes pip setuptools wheel \
    && groupadd --gid 10001 partbook \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/partbook --no-create-home --shell /usr/sbin/nologin partbook \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/partbook /etc/partbook /etc/partbook/keys
COPY --from=build /opt/partbook /opt/partbook
# Numba and Matplotlib write caches beside their code unless told where, and the system is mounted read-only.
ENV PATH=/opt/partbook/bin:$PATH \
    HOME=/var/lib/partbook \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
USER 10001:10001
WORKDIR /var/lib/partbook
VOLUME ["/var/lib/partbook"]
EXPOSE 9443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5m --timeout=60s --start-period=2m --retries=3 CMD ["partbook", "doctor", "/var/lib/partbook", "--json"]
ENTRYPOINT ["partbook"]
CMD ["coordinator", "start", "--home", "/var/lib/partbook"]
