#!/bin/sh
# Make the bucket if it is not there; exit status 1 where it then still is not.
set -eu
ask() { echo "$1" | weed shell -master=127.0.0.1:9333; }
has_bucket() { ask s3.bucket.list | grep -qw crossmodal; }
has_bucket || { ask "s3.bucket.create -name crossmodal"; has_bucket; }
