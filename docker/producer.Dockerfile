# Gateway, background process, Flower and the command line: all that needs no torch. From the repository's root:
#
#   docker build -f docker/producer.Dockerfile -t crossmodal-producer:0.2.0 .
#
# BASE is an image of Debian with Python 3.11. docs/docker.md says how to pin it by its digest.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /tools \
 && /tools/bin/pip install -c constraints.txt setuptools \
 && python -m venv --without-pip /venv

# Of the package only its metadata, so that this layer stays when nothing but code changes.
FROM tools AS dependencies
COPY pyproject.toml LICENSE ./
RUN touch README.md \
 && /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /empty . \
 && /tools/bin/pip --python /venv/bin/python install -c constraints.txt \
      "$(echo /empty/*.whl)[gateway,monitor,otel]" \
 && /tools/bin/pip --python /venv/bin/python uninstall --yes crossmodal-jobs

FROM tools AS app
COPY pyproject.toml LICENSE README.md ./
COPY crossmodal crossmodal
COPY producer producer
COPY worker worker
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /venv/bin/python install --no-deps --prefix /app /wheel/*.whl

FROM ${BASE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crossmodal-producer" \
      org.opencontainers.image.description="Gateway, background process, Flower and command line of crossmodal" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 crossmodal \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin crossmodal
COPY --from=dependencies /venv /venv
COPY --from=app /app /venv
# /tmp is the one place that is written to: mount a tmpfs there and the root file system read-only.
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CROSSMODAL_RUN_DIR=/tmp/crossmodal \
    CROSSMODAL_LOG_FORMAT=json \
    CROSSMODAL_GATEWAY_ADDRESS=0.0.0.0 \
    CROSSMODAL_GATEWAY_PORT=8000
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
  CMD ["crossmodal", "health", "--url", "http://127.0.0.1:8000/livez"]
ENTRYPOINT ["crossmodal"]
CMD ["gateway"]
