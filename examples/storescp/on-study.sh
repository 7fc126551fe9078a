#!/bin/bash
# Upscale each study that DCMTK's storescp has received.
#
# Install, with BASE a folder of your choice on one disk:
#
#   storescp --sort-on-study-uid study --eostudy-timeout 60 \
#     --output-directory BASE/in \
#     --exec-on-eostudy '/opt/cxrsr/on-study.sh "#p"' 11112
#
# storescp gives the command to a shell. Of its placeholders use #p only: #a and #c are what the
# peer calls itself and you. Do not sort on the patient's name: folders would bear it.
#
#   BASE/in       what storescp writes
#   BASE/work     studies that wait or are worked on: a study is moved here first, so that an image
#                 that comes late begins a folder of its own and is not lost
#   BASE/out      results, a folder a study; `cxrsr send` or storescu takes them from here
#   BASE/done     received studies that are upscaled, or hold nothing to upscale (exit code 3)
#   BASE/failed   received studies that are not, or not whole; what could be done is in out
#   BASE/reports  a JSON report a study
#
# On failure:
#   exit code 1, 4, 5, a time-out or a crash is the study's: it goes to failed, and the next goes on.
#   2, 6, 7, 8 and 130 are the installation's (option, disk, model, network, stop): the study
#   stays in work, and the next call does it. Called without a study, only what is in work is done.
# The exit code is the last failure's. stderr names files by UID, nothing else of a patient.
#
# Environment: CXRSR_COMMAND (cxrsr), CXRSR_OPTIONS (more options, quoted as in a shell),
# CXRSR_TIMEOUT (4h for a study, as `timeout` reads it).
set -euo pipefail
umask 077

command=${CXRSR_COMMAND:-cxrsr}
words=$(xargs -r printf '%s\n' <<<"${CXRSR_OPTIONS:-}") || exit 2
mapfile -t options < <(if [[ $words ]]; then printf '%s\n' "$words"; fi)

if (($#)); then
    study=$(realpath -e -- "$1")
    base=$(dirname -- "$(dirname -- "$study")")
else
    base=${CXRSR_BASE:?names the folder that holds in and work, if no study is given}
fi
mkdir -p -- "$base"/{work,out,done,failed,reports}

# Move without replacing or nesting: what came before keeps its name.
move() {
    local from=$1 folder=$2 name count=1
    name=$(basename -- "$from")
    while [[ -e $folder/$name ]]; do
        count=$((count + 1))
        name=$(basename -- "$from").$count
    done
    mv -T -- "$from" "$folder/$name"
}

# One study at a time: two networks would share the memory and the processors.
exec 9>"$base/work/.lock"
if (($#)); then
    flock 9
    move "$study" "$base/work"
else
    flock --nonblock 9 || exit 0 # somebody is at it
fi

status=0
for waiting in "$base"/work/*/; do
    [[ -d $waiting ]] || continue
    waiting=${waiting%/}
    name=$(basename -- "$waiting")
    code=0
    timeout --kill-after=5m "${CXRSR_TIMEOUT:-4h}" \
        "$command" upscale --quiet --no-progress "${options[@]}" \
        --report "$base/reports/$name.json" "$waiting" "$base/out/$name" 9>&- || code=$?
    case $code in
        0 | 3)
            code=0
            move "$waiting" "$base/done"
            ;;
        2 | 6 | 7 | 8 | 130) status=$code ;;
        *)
            status=$code
            move "$waiting" "$base/failed"
            ;;
    esac
    if ((code)); then
        echo "cxrsr: $name: exit code $code" >&2
    fi
done
exit "$status"
