# A worker, for the CPU and for GPUs. From the repository's root:
#
#   docker build -f docker/worker.Dockerfile -t crossmodal-worker:0.2.0 .
#
# BASE is an image of Debian with Python 3.11. docs/docker.md says how to pin it by its digest.
# TORCH_INDEX is where torch comes from. PyPI's torch has CUDA inside and runs on a CPU as well;
# https://download.pytorch.org/whl/cpu has one without CUDA, for a smaller image.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /tools \
 && /tools/bin/pip install -c constraints.txt setuptools \
 && python -m venv --without-pip /venv

# Another index is asked for torch and torchvision alone: what they need comes from PyPI.
FROM tools AS torch
ARG TORCH_INDEX=
RUN /tools/bin/pip --python /venv/bin/python install --no-deps -c constraints.txt \
      ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
 && /tools/bin/pip --python /venv/bin/python install -c constraints.txt torch torchvision

# Of the package only its metadata, so that this layer stays when nothing but code changes.
FROM torch AS dependencies
COPY pyproject.toml LICENSE ./
RUN touch README.md \
 && /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /empty . \
 && /tools/bin/pip --python /venv/bin/python install -c constraints.txt \
      "$(echo /empty/*.whl)[worker,heif,hf,jxl,otel]" \
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
LABEL org.opencontainers.image.title="crossmodal-worker" \
      org.opencontainers.image.description="Model host and Celery workers of crossmodal" \
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
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CROSSMODAL_RUN_DIR=/tmp/crossmodal \
    CROSSMODAL_LOG_FORMAT=json
WORKDIR /tmp
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 \
  CMD ["crossmodal", "health", "--ready"]
ENTRYPOINT ["crossmodal"]
CMD ["worker"]
