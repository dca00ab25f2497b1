#!/usr/bin/env bash
# All checks that need a GPU, in under ten minutes, as one table:    benchmarks/gpu.sh [PYTHON]
#
# Everything is made of the embedded sample, without the network. A check compares with the same work on the CPU; a row is
# ok, or says what differs. Seconds are those of the whole command on the GPU.
set -u
PYTHON=${1:-python}
ROOT=$(mktemp -d); trap 'rm -rf "$ROOT"' EXIT
SMALL="--set teacher.epochs=1 --set student.epochs=3 --set transfer.heavy.num_samples=2000 --set generators.gpt2.epochs=1"
FAILED=0

row() { printf '%-44s %8s  %s\n' "$1" "$2" "$3"; [[ $3 == ok* ]] || FAILED=1; }

# check NAME COMMAND...: run a command, say how long it took; then `compare` prints "ok ..." or what is wrong.
check() {
  local name=$1 begin=$SECONDS; shift
  if timeout 200 "$@" > "$ROOT/out" 2> "$ROOT/err"; then SECONDS_TAKEN=$((SECONDS - begin)); return 0; fi
  row "$name" "$((SECONDS - begin))" "FAILED: $(grep -m1 '^error' "$ROOT/err" || tail -1 "$ROOT/err")"; return 1
}

# Say how far the logits of two files lie apart, against a limit.
logits() {
  "$PYTHON" - "$@" <<'X'
import sys
from pathlib import Path
import numpy as np
from kdcli.teacher.logits import read_logits
one, other = (read_logits(Path(name)) for name in sys.argv[1:3])
order = np.argsort(one.hashes), np.argsort(other.hashes)
apart = float(np.abs(one.logits[order[0]] - other.logits[order[1]]).max())
print(f"{'ok' if apart <= float(sys.argv[3]) else 'FAILED'}: logits {apart:.2g} apart, at most {sys.argv[3]}")
X
}

# Say how far the values of a name in the results of two commands (--json) lie apart.
values() {
  "$PYTHON" - "$@" <<'X'
import json, sys
def find(value):
    for key, inside in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == sys.argv[3]:
            yield from inside if isinstance(inside, list) else [inside]
        else:
            yield from find(inside)
one, other = (list(find(json.load(open(name))["result"])) for name in sys.argv[1:3])
apart = max(abs(first - second) for first, second in zip(one, other, strict=True))
shown = ", ".join(f"{first:.3f} ({second:.3f})" for first, second in zip(one, other))
print(f"{'ok' if apart <= float(sys.argv[4]) else 'FAILED'}: {sys.argv[3]} {shown}")
X
}

kd() { "$PYTHON" -m kdcli --json --no-progress "$@"; }

"$PYTHON" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"' || exit 6
"$PYTHON" -c 'import torch; print(torch.cuda.get_device_name(0), "torch", torch.__version__)'
printf '%-44s %8s  %s\n' check seconds result

# The same teacher, transfer set and student on the CPU.
kd run-all --device cpu --run-dir "$ROOT/cpu" $SMALL > "$ROOT/cpu.json" 2> "$ROOT/err" || { cat "$ROOT/err"; exit 1; }

# An accuracy may differ by a tenth: the dev set of the sample is small, and the trainings are not the same.
for precision in fp32 bf16 fp16; do
  name="fine-tune the teacher, $precision"
  check "$name" kd teacher train --device cuda --precision $precision --output "$ROOT/t-$precision" --run-dir "$ROOT/x" $SMALL &&
    { cp "$ROOT/out" "$ROOT/t.json"; kd teacher train --device cpu --output "$ROOT/t-cpu" --force --run-dir "$ROOT/y" $SMALL \
      > "$ROOT/c.json" 2> /dev/null; row "$name" $SECONDS_TAKEN "$(values "$ROOT/t.json" "$ROOT/c.json" accuracy 0.1)"; }
done

EXPORT=(kd teacher export --teacher "$ROOT/cpu/teacher" --input "$ROOT/cpu/transfer/lite.parquet" --run-dir "$ROOT/x")
"${EXPORT[@]}" --device cpu --output "$ROOT/e-cpu.safetensors" > /dev/null 2>&1
for precision in fp32:0.001 bf16:0.2 fp16:0.03; do
  name="export, ${precision%:*}"
  check "$name" "${EXPORT[@]}" --device cuda --set precision=\"${precision%:*}\" --output "$ROOT/e-${precision%:*}.safetensors" &&
    row "$name" $SECONDS_TAKEN "$(logits "$ROOT/e-cpu.safetensors" "$ROOT/e-${precision%:*}.safetensors" "${precision#*:}")"
done

name="export, the largest batch that fits (auto)"
check "$name" "${EXPORT[@]}" --device cuda --batch-size auto --output "$ROOT/e-auto.safetensors" &&
  row "$name" $SECONDS_TAKEN "$(logits "$ROOT/e-cpu.safetensors" "$ROOT/e-auto.safetensors" 0.001)"

name="a batch that does not fit is halved"
check "$name" "$PYTHON" - <<'X'
import torch
from kdcli.api import QuietReporter
from kdcli.models.device import halve_until_it_fits
free, _ = torch.cuda.mem_get_info()
size = int(free / 4 / 6)  # floats: a batch of 4 fits, one of 8 does not
_, used = halve_until_it_fits(lambda batch: torch.zeros(batch, size, device="cuda"), 64, reporter=QuietReporter())
assert used == 4, f"a batch of {used} was taken"
X
[[ $? == 0 ]] && row "$name" $SECONDS_TAKEN ok

name="sampling"
check "$name" kd transfer heavy --device cuda --output "$ROOT/heavy.parquet" --run-dir "$ROOT/z" $SMALL &&
  row "$name" $SECONDS_TAKEN ok

name="student"
check "$name" kd run-all --device cuda --run-dir "$ROOT/gpu" $SMALL &&
  { cp "$ROOT/out" "$ROOT/gpu.json"; row "$name (the whole demo)" $SECONDS_TAKEN "$(values "$ROOT/cpu.json" "$ROOT/gpu.json" accuracy 0.1)"; }

# Ray numbers the devices that CUDA_VISIBLE_DEVICES lists: this one twice.
name="two processes on one device by Ray"
if CUDA_VISIBLE_DEVICES=0,0 "$PYTHON" -m ray.scripts.scripts start --head --num-gpus 2 --num-cpus 2 --port 6390 > /dev/null 2>&1; then
  check "$name" "${EXPORT[@]}" --device cuda --engine ray --ray-address 127.0.0.1:6390 --output "$ROOT/e-ray.safetensors" &&
    row "$name" $SECONDS_TAKEN "$(logits "$ROOT/e-fp32.safetensors" "$ROOT/e-ray.safetensors" 0.0001)"
  "$PYTHON" -m ray.scripts.scripts stop > /dev/null 2>&1
else
  row "$name" 0 "FAILED: ray start (pip install 'kdcli[ray]')"
fi
exit $FAILED
