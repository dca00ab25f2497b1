#!/usr/bin/env bash
# All checks that need a GPU, in under ten minutes, as one table:    benchmarks/gpu.sh [PYTHON]
#
# Everything is made here, of the embedded sample and without the network. PYTHON is one that has kd and what it depends
# on, and Ray for the last row. A check compares with the same work on the CPU; a row says ok, or what is wrong, and a
# step that fails stops no other. Seconds are those of a whole command, the start of Python and the loading included.
#
#     KD_DEVICE=cpu benchmarks/gpu.sh    # does the script itself run? On less data, and in fp32 alone
set -u
PYTHON=${1:-python} DEVICE=${KD_DEVICE:-cuda} LIMIT=${KD_LIMIT:-570} FAILED=0
cd "$(dirname "$0")/.." || exit 1
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_AUTH_MODE=disabled
ROOT=$(mktemp -d)
trap 'rm -rf "$ROOT"' EXIT
export RAY_TMPDIR=$ROOT  # where Ray leaves the address of a cluster that is gone
KD=("$PYTHON" -m kdcli --json --no-progress)
SMALL=(--set transfer.method=lite+heavy --set transfer.heavy.num_samples=2000)
TEXTS=20000 PRECISIONS=(fp32 bf16 fp16)
if [[ $DEVICE == cpu ]]; then
  SMALL=(--set transfer.method=lite+heavy --set transfer.heavy.num_samples=50 --set transfer.lite.n_iter=1)
  SMALL+=(--set generators.gpt2.epochs=1 --set teacher.epochs=1 --set student.epochs=1)
  TEXTS=100 PRECISIONS=(fp32)
fi

row() { # NAME SECONDS RESULT
  printf '%-46s %7s  %s\n' "$1" "$2" "${3:-FAILED: nothing to compare with}"
  [[ ${3:-} == ok* ]] || FAILED=1
}

# attempt COMMAND...: its output goes to $ROOT/out; TOOK are the seconds, and WHY is what went wrong.
attempt() {
  local begin=$SECONDS left=$((LIMIT - SECONDS)) code
  TOOK=0 WHY="FAILED: no time left"
  ((left > 10)) || return 1
  timeout $((left < LIMIT / 2 ? left : LIMIT / 2)) "$@" > "$ROOT/out" 2> "$ROOT/err"
  code=$? TOOK=$((SECONDS - begin))
  WHY="FAILED ($code): $(tail -n 1 "$ROOT/err") $(head -c 400 "$ROOT/out" | tr -s '\n ' ' ')"
  return $code
}

# check NAME COMPARISON COMMAND...: a row; the comparison, a command line, prints "ok ..." or what is wrong.
check() {
  local name=$1 compare=$2
  shift 2
  if attempt "$@"; then row "$name" $TOOK "$(eval "$compare" 2> "$ROOT/err" || tail -1 "$ROOT/err")"; else row "$name" $TOOK "$WHY"; fi
}

# logits FILE LIMIT: how far its logits are from those of the CPU.
logits() {
  "$PYTHON" - "$ROOT/e-cpu.safetensors" "$@" <<'END'
import sys
import numpy as np
from safetensors.numpy import load_file
one, other = (load_file(name) for name in sys.argv[1:3])
order = np.argsort(one["row_hash"]), np.argsort(other["row_hash"])
apart = float(np.abs(one["logits"][order[0]] - other["logits"][order[1]]).max())
print(f"{'ok' if apart <= float(sys.argv[3]) else 'FAILED'}: {len(order[0])} logits, {apart:.2g} apart, at most {sys.argv[3]}")
END
}

# metric NAME FILE LIMIT: the values of this name in the last output, and in that of the CPU (in brackets).
metric() {
  "$PYTHON" - "$ROOT/out" "$ROOT/$2" "$1" "$3" <<'END'
import json, sys
def find(value):
    for key, inside in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == sys.argv[3]:
            yield from inside if isinstance(inside, list) else [inside]
        elif key not in ("history", "intervals"):  # one training may be shorter than the other
            yield from find(inside)
ours, theirs = (list(find(json.load(open(name))["result"])) for name in sys.argv[1:3])
pairs = [pair for pair in zip(ours, theirs, strict=True) if all(isinstance(value, float) for value in pair)]
apart = max(abs(one - other) for one, other in pairs)
shown = ", ".join(f"{one:.3f} ({other:.3f})" for one, other in pairs)
print(f"{'ok' if apart <= float(sys.argv[4]) else 'FAILED'}: {sys.argv[3]} {shown}")
END
}

# rate COUNT UNIT: how many a second the last command has done.
rate() { echo "ok: $(($1 / (TOOK > 0 ? TOOK : 1))) $2/s with the start"; }

# keep NAME: keep the last output as that of the CPU.
keep() { cp "$ROOT/out" "$ROOT/$1" && echo "ok: what the others are compared with"; }

"$PYTHON" -c "
import torch, kdcli
if '$DEVICE' != 'cpu':
    print(torch.cuda.get_device_name(0), torch.cuda.mem_get_info()[1] // 2**30, 'GiB')
print('torch', torch.__version__, 'kd', kdcli.__version__)" || FAILED=1
printf '%-46s %7s  %s\n' check seconds result

# An accuracy may differ by a tenth: the dev set of the sample is small, and the trainings are not the same.
check "everything on the CPU" "keep cpu.json" "${KD[@]}" run-all --device cpu --run-dir "$ROOT/cpu" "${SMALL[@]}"
check "everything on $DEVICE" "metric accuracy cpu.json 0.1" "${KD[@]}" run-all --device "$DEVICE" --run-dir "$ROOT/gpu" "${SMALL[@]}"

TEACHER=("${KD[@]}" teacher train --run-dir "$ROOT/x" "${SMALL[@]}")
check "teacher on the CPU" "keep teacher.json" "${TEACHER[@]}" --device cpu --output "$ROOT/t-cpu"
for precision in "${PRECISIONS[@]}"; do
  check "teacher, $precision" "metric accuracy teacher.json 0.1" \
    "${TEACHER[@]}" --device "$DEVICE" --precision $precision --output "$ROOT/t-$precision"
done

GENERATOR=("${KD[@]}" transfer heavy "${SMALL[@]}")
check "generator and samples on the CPU" "keep heavy.json" "${GENERATOR[@]}" --device cpu --run-dir "$ROOT/h-cpu"
for precision in "${PRECISIONS[@]}"; do
  check "generator and samples, $precision" "metric bits_per_character heavy.json 0.3" \
    "${GENERATOR[@]}" --device "$DEVICE" --precision $precision --run-dir "$ROOT/h-$precision"
done

EXPORT=("${KD[@]}" teacher export --teacher "$ROOT/cpu/teacher" --input "$ROOT/cpu/transfer/lite.parquet" --run-dir "$ROOT/x")
check "logits on the CPU" "keep export.json" "${EXPORT[@]}" --device cpu --output "$ROOT/e-cpu.safetensors"
declare -A APART=([fp32]=0.001 [bf16]=0.2 [fp16]=0.03)
for precision in "${PRECISIONS[@]}"; do
  file=$ROOT/e-$precision.safetensors
  check "logits, $precision" "logits $file ${APART[$precision]}" \
    "${EXPORT[@]}" --device "$DEVICE" --precision $precision --output "$file"
done
check "logits, the largest batch that fits" "logits $ROOT/e-auto.safetensors 0.001" \
  "${EXPORT[@]}" --device "$DEVICE" --batch-size auto --output "$ROOT/e-auto.safetensors"

STUDENT=("${KD[@]}" student --run-dir "$ROOT/x" --input "$ROOT/cpu/join/joined.parquet" "${SMALL[@]}")
check "student on the CPU" "keep student.json" "${STUDENT[@]}" --device cpu --output "$ROOT/s-cpu"
check "student" "metric accuracy student.json 0.1" "${STUDENT[@]}" --device "$DEVICE" --output "$ROOT/s-gpu"

cat > "$ROOT/halve.py" <<'END'
import sys
import torch
from kdcli.api import QuietReporter
from kdcli.models.device import halve_until_it_fits
if sys.argv[1] == "cpu":
    sys.exit("there is no memory of a GPU")
size = int(torch.cuda.mem_get_info()[0] / 4 / 6)  # floats: a batch of 4 fits, one of 8 does not
_, used = halve_until_it_fits(lambda batch: torch.zeros(batch, size, device="cuda"), 64, reporter=QuietReporter())
assert used == 4, f"a batch of {used} was taken"
END
check "a batch that does not fit is halved" "echo ok" "$PYTHON" "$ROOT/halve.py" "$DEVICE"

# How fast: a random encoder of BERT-base's size, texts of its words.
cat > "$ROOT/base.py" <<'END'
import random, sys
from pathlib import Path
import polars as pl
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
root, count, small = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "cpu"
tokenizer = AutoTokenizer.from_pretrained(root / "cpu" / "teacher")
names = {0: "negative", 1: "positive"}
size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32} if small else {}
BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), id2label=names, **size)).save_pretrained(root / "base")
tokenizer.save_pretrained(root / "base")
words = [word for word in tokenizer.get_vocab() if word.isalpha()]
texts = [" ".join(random.choices(words, k=random.randint(3, 40))) for _ in range(count)]
pl.DataFrame({"sentence": texts}).write_parquet(root / "texts.parquet")
END
check "an encoder of BERT-base's size is made" "echo ok" "$PYTHON" "$ROOT/base.py" "$ROOT" "$TEXTS" "$DEVICE"
BASE=("${KD[@]}" teacher export --teacher "$ROOT/base" --input "$ROOT/texts.parquet" --run-dir "$ROOT/x")
for precision in "${PRECISIONS[@]}"; do
  check "logits of BERT-base, $precision" "rate $TEXTS texts" \
    "${BASE[@]}" --device "$DEVICE" --precision $precision --batch-size auto --output "$ROOT/b-$precision.safetensors"
done

# Ray numbers the devices that CUDA_VISIBLE_DEVICES lists: this one twice.
name="two processes on one device by Ray" PORT=6390 GPUS=2
[[ $DEVICE == cpu ]] && GPUS=0
PYTHONUNBUFFERED=1 CUDA_VISIBLE_DEVICES=0,0 "$PYTHON" -m ray.scripts.scripts start --head --block --num-gpus $GPUS \
  --num-cpus 2 --port $PORT --include-dashboard false > "$ROOT/ray" 2>&1 &
HEAD=$!
for _ in {1..90}; do # its port answers long before the node is there
  kill -0 $HEAD 2> /dev/null && ! grep -q "runtime started" "$ROOT/ray" || break
  sleep 1
done
if kill -0 $HEAD 2> /dev/null; then
  check "$name" "logits $ROOT/e-ray.safetensors 0.001" \
    "${EXPORT[@]}" --device "$DEVICE" --engine ray --ray-address 127.0.0.1:$PORT --output "$ROOT/e-ray.safetensors"
  kill $HEAD
  wait $HEAD
else
  row "$name" 0 "FAILED: $(tail -1 "$ROOT/ray") (pip install 'kdcli[ray]')"
fi
exit $FAILED
