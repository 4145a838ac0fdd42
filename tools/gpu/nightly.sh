#!/usr/bin/env bash
# The GPU job of .github/workflows/nightly.yml: the whole sweep, and the alarms of its history.
#
#   tools/gpu/nightly.sh FOLDER HISTORY [OPTION...]
#
# FOLDER gets the report, trend.txt and trend.html, HISTORY a line for each check. Options go to the
# sweep; a later one wins. Environment: DEVICE (cuda; cpu to rehearse), PYTHON (python3). The status
# is that of the sweep, or of the trend where the sweep is green.
set -uo pipefail

folder=$1 history=$2
shift 2
python=${PYTHON:-python3} status=0 trend=0
mkdir -p "$folder"
"$python" -m pytest -p no:cacheprovider "$("$python" -m harness suites)" --pp 4 \
  --pp-device "${DEVICE:-cuda}" --pp-profile both --pp-time-limit 9000 \
  --pp-report "$folder" --pp-history "$history" "$@" || status=$?
"$python" -m harness report trend "$history" --html "$folder/trend.html" \
  >"$folder/trend.txt" || trend=$?
cat "$folder/trend.txt"
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  { echo '```' && cat "$folder/trend.txt" && echo '```'; } >>"$GITHUB_STEP_SUMMARY"
fi
exit $((status ? status : trend))
