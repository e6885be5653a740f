#!/bin/sh
# Draw a prompt over HTTP with curl alone: submit, wait, fetch.
#   sh draw.sh "a large red circle on a white background" circle.png
set -eu
url=${CROSSMODAL_URL:-http://127.0.0.1:8000}
prompt=${1:?a prompt} out=${2:?a file to write}
# Without a key, the header is empty, and curl sends none.
auth=${CROSSMODAL_KEY:+Authorization: Bearer $CROSSMODAL_KEY}

fail() { printf '%s\n' "$1" >&2; exit 1; }
field() { printf '%s\n' "$2" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
# An answer; where there is none that is wanted, the reason: the API's `detail`, else curl's.
call() {
  answer=$(curl --silent --show-error --fail-with-body --header "$auth" "$@" 2>&1) || {
    detail=$(field detail "$answer")
    fail "${detail:-$answer}"
  }
  printf '%s\n' "$answer"
}

# As a form, curl escapes the prompt; a file would be given as --form file=@photo.jpg.
accepted=$(call "$url/v1/jobs" --form task=txt2img --form-string "prompt=$prompt")
job=$(field status_url "$accepted")
events=$(call --no-buffer "$job/events")  # ends when the job has
last=$(printf '%s\n' "$events" | grep '^data' | tail -1)
case $last in
  *'"state":"succeeded"'*) ;;
  *) fail "$(field state "$last") $(field code "$last") $(field message "$last")" ;;
esac
result=$(call "$job/result")
call --location --output "$out" "$(field url "$result")"
echo "wrote $out"
