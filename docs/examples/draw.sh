#!/bin/sh
# Draw a prompt over HTTP with curl alone: submit, wait, fetch.
#   sh draw.sh "a large red circle on a white background" circle.png
set -eu
url=${CROSSMODAL_URL:-http://127.0.0.1:8000}
prompt=${1:?a prompt} out=${2:?a file to write}
# Without a key, the header is empty, and curl sends none.
auth=${CROSSMODAL_KEY:+Authorization: Bearer $CROSSMODAL_KEY}

call() { curl --silent --show-error --fail-with-body --header "$auth" "$@"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# As a form, curl escapes the prompt; a file would be given as --form file=@photo.jpg.
job=$(call "$url/v1/jobs" --form task=txt2img --form-string "prompt=$prompt" | field status_url)
events=$(call --no-buffer "$job/events")  # ends when the job has
echo "$events" | grep '^data' | tail -1 | grep -q '"state":"succeeded"' || { echo "$events" >&2; exit 1; }
call --location --output "$out" "$(call "$job/result" | field url)"
echo "wrote $out"
