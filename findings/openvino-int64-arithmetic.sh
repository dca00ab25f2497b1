#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: arithmetic on int64 tensors of an ONNX model is done in 32 bits, and Mod in float32. The output is
# still called int64. A product beyond 2^31 wraps (1000003919 * 3 comes out as -1294955539), and 1000003919 modulo
# 2147483647 as 1000003904. A model that computes with large integers in its graph, as one does that hashes n-grams to
# rows of an embedding table, looks up other rows than in onnxruntime, so that its labels differ; nothing is raised.
# What to do: compute hashes before the model, or keep every intermediate value below 2^24.
# Seen: as said; onnxruntime 1.32.0 gives the values of NumPy's int64. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper

PRIME, SIZE = 1_000_003_919, 2_147_483_647
words = np.array([1, 2, 3, 5_000], np.int64)


def answers(operator, value, inputs):
    """Return what both runtimes make of `inputs OPERATOR value`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in "xy")
    constant = helper.make_tensor("c", TensorProto.INT64, [], [value])
    graph = helper.make_graph([helper.make_node(operator, ["x", "c"], ["y"])], "g", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    core = openvino.Core()
    found = core.compile_model(core.read_model(model), "CPU")(inputs)[0]
    assert found.dtype == np.int64
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": inputs})[0], found


right, found = answers("Mul", PRIME, words)
print("product  onnxruntime", right.tolist(), "OpenVINO", found.tolist())
assert np.array_equal(right, words * PRIME)
assert np.array_equal(found, (words * PRIME).astype(np.int32)), "it is no longer a product of 32 bits"

right, found = answers("Mod", SIZE, np.array([PRIME], np.int64))
print("modulo   onnxruntime", right.tolist(), "OpenVINO", found.tolist())
assert right.tolist() == [PRIME]
assert found.tolist() == [int(np.float32(PRIME))], "it is no longer computed in float32"
PY
echo "as described"
