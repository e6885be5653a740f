#!/bin/sh
# SeaweedFS as an S3 store for one tenant. Only the S3 port, which asks for the keys, can be reached
# from other containers; master, filer and volume server ask for none, and stay on loopback.
set -eu
umask 077
cat > /tmp/s3.json <<END
{"identities": [{
  "name": "crossmodal",
  "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
  "actions": ["Read:crossmodal", "Write:crossmodal", "List:crossmodal", "Tagging:crossmodal"]
}]}
END
exec weed -logtostderr=true server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.volumeSizeLimitMB=1024 -master.telemetry=false -volume.max=0 -volume.preStopSeconds=1 \
  -s3 -s3.ip.bind=0.0.0.0 -s3.config=/tmp/s3.json -s3.iam=false -s3.autoCreateBucket=false \
  -s3.port.iceberg=0 -s3.port.lance=0
