#!/bin/bash
# List a folder's files for upscale.sbatch, each with its absolute path, ended by a zero byte.
#
#   make-list.sh IN LIST
#
# Hidden files and folders, links to folders and DICOMDIRs are left out, as `cxrsr upscale` does.
# The list appears whole or not at all. Make it once: a rerun of the array needs the same list,
# or another shard meets what the first has done, and refuses it.
set -euo pipefail

in=$(realpath -e -- "${1:?names the folder}")
list=${2:?names the list to write}
part=$(mktemp -- "$list.XXXXXX")
trap 'rm -f -- "$part"' EXIT
find "$in" -mindepth 1 -name '.*' -prune -o -xtype f -not -iname DICOMDIR -print0 | sort -z >"$part"
mv -- "$part" "$list"
