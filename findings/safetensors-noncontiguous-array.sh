#!/usr/bin/env bash
# safetensors 0.8.0 (NumPy side): save_file writes a transposed array in the order of its memory and not of its elements.
# The file has the right shape and the wrong values, and nothing is raised. The PyTorch side refuses such a tensor.
# What to do: numpy.ascontiguousarray(array) before saving.
# Seen: "saved [[0, 3], [1, 4], [2, 5]], read [[0, 1], [2, 3], [4, 5]]". This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from safetensors.numpy import load_file, save_file

weights = np.arange(6, dtype=np.float32).reshape(2, 3).T  # valid, not contiguous
save_file({"weights": weights}, "weights.safetensors")
read = load_file("weights.safetensors")["weights"]
print("saved", weights.astype(int).tolist(), "read", read.astype(int).tolist())
assert read.shape == weights.shape
assert read.ravel().tolist() == [0, 1, 2, 3, 4, 5], "the order of memory is no longer what is written"

save_file({"weights": np.ascontiguousarray(weights)}, "weights.safetensors")
assert np.array_equal(load_file("weights.safetensors")["weights"], weights)
PY
echo "as described"
