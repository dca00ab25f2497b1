#!/usr/bin/env bash
# Ray 2.60.0: when a worker process ends in the middle of a task, the driver prints "(raylet) A worker died or was killed
# ..." on its stdout, coloured, also with log_to_driver=False and logging_level="error", and when the task is retried and
# succeeds. A program that writes its result as JSON to stdout then writes no JSON; a message that Ray has kept back comes
# at the end of the process, behind the result. What to do: contextlib.redirect_stdout(sys.stderr) around all that Ray
# does, ray.shutdown() within it.
# Seen: plain stdout is no JSON, redirected it is {"value": 7}. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ray==2.60.0
cat > "$folder/driver.py" <<'PY'
import json
import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import ray


@ray.remote(num_cpus=1, max_retries=2)
def work(mark):
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)  # as the system ends a process that takes too much memory
    return 7


mark, way = sys.argv[1:]
with redirect_stdout(sys.stderr) if way == "redirected" else nullcontext():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    value = ray.get(work.remote(mark))
    ray.shutdown()
print(json.dumps({"value": value}))
PY
export RAY_TMPDIR=$folder RAY_USAGE_STATS_ENABLED=0
for way in plain redirected; do
    "$folder/venv/bin/python" "$folder/driver.py" "$folder/$way.mark" "$way" > "$folder/$way.out" 2> "$folder/$way.err"
    echo "$way: $(head -c 120 "$folder/$way.out")"
done
grep -q "A worker died" "$folder/plain.out" || { echo "the message is elsewhere now"; exit 1; }
[ "$(cat "$folder/redirected.out")" = '{"value": 7}' ] || { echo "stdout holds more than the result"; exit 1; }
grep -q "A worker died" "$folder/redirected.err" || { echo "the message is gone"; exit 1; }
echo "as described"
