#!/bin/bash
# Upscale what a folder has got since last night; for cron (see cxrsr.crontab beside this).
#
#   night.sh IN OUT
#
# A night that went well says nothing, so that cron mails nothing. Otherwise stderr, which cron
# mails to MAILTO, has cxrsr's lines on what failed, and one with exit code and report. Lines
# name files by their path, and nothing from inside a file: name no file after a patient.
#
# On failure: bad files are copied to STATE/bad, each with its reason, and the others are done
# nevertheless. What a stop or a power cut left is done the next night. A night that begins
# while the last one still runs ends at once with 75; no input at all (3) is no failure.
#
# STATE/reports keeps a report a day; delete old ones as you like.
#
# Environment: CXRSR_STATE (OUT/../state), CXRSR_COMMAND (cxrsr), CXRSR_OPTIONS (more options,
# quoted as in a shell).
set -euo pipefail

in=${1:?names the folder of radiographs}
out=${2:?names the folder for results}
command=${CXRSR_COMMAND:-cxrsr}
state=${CXRSR_STATE:-$(dirname -- "$out")/state}
words=$(xargs -r printf '%s\n' <<<"${CXRSR_OPTIONS:-}") || exit 2
mapfile -t options < <(if [[ $words ]]; then printf '%s\n' "$words"; fi)

mkdir -p -- "$state/reports"
exec 9>"$state/lock"
if ! flock --nonblock 9; then
    echo "cxrsr: the night before is still at work" >&2
    exit 75
fi

report=$state/reports/$(date +%F).json
code=0
"$command" upscale --quiet --no-progress "${options[@]}" \
    --quarantine "$state/bad" --report "$report" "$in" "$out" 9>&- || code=$?
if ((code == 3)); then
    exit 0
fi
if ((code)); then
    echo "cxrsr: exit code $code; the report is $report" >&2
fi
exit "$code"
