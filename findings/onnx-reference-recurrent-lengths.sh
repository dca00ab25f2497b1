#!/usr/bin/env bash
# onnx 1.23.2: ReferenceEvaluator, by which runtimes and exporters are checked, computes LSTM, GRU and RNN nodes as if
# sequence_lens, clip and (LSTM) input_forget were not there, and raises nothing. A converter that is compared with it on
# a padded batch looks right where it is wrong, and a right one looks wrong. onnxruntime 1.32.0 follows the operators' text.
# What to do: compare recurrent models with onnxruntime, or give the reference batches of one length.
# Seen: the last state of a sequence of 2 steps, padded to 5, is that of 5 steps to the last bit; with clip = 0.1 and with
# input_forget = 1 the results are those without. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUT, HIDDEN = 3, 4
draw = np.random.default_rng(0)
batch = draw.standard_normal((5, 2, INPUT)).astype(np.float32)


def last_states(kind, lengths, **attributes):
    """Return the last states by the reference and by onnxruntime; the weights are the same at each call."""
    same = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(same.standard_normal((1, GATES[kind] * HIDDEN, size)).astype(np.float32), name)
        for name, size in (("W", INPUT), ("R", HIDDEN))
    ]
    inputs = {"x": (TensorProto.FLOAT, ["time", "batch", INPUT]), "lengths": (TensorProto.INT32, ["batch"])}
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "W", "R", "", "lengths"], ["", "last"], hidden_size=HIDDEN, **attributes)],
        kind,
        [helper.make_tensor_value_info(name, *form) for name, form in inputs.items()],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, "batch", HIDDEN])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    values = {"x": batch, "lengths": np.array(lengths, np.int32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, values)[0], session.run(None, values)[0]


for kind in GATES:
    plain, right = last_states(kind, [5, 5])
    assert np.allclose(plain, right, atol=1e-5)
    forget = {"input_forget": 1} if kind == "LSTM" else {}
    for lengths, attributes in (([2, 5], {}), ([5, 5], {"clip": 0.1}), *([([5, 5], forget)] if forget else [])):
        found, right = last_states(kind, lengths, **attributes)
        print(kind, lengths, attributes, "reference against onnxruntime:", f"{np.abs(found - right).max():.2g}")
        assert np.abs(found - right).max() > 0.01, "the reference follows the operator's text now"
        assert np.array_equal(found, plain)
PY
echo "as described"
