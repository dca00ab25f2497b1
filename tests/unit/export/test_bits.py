import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from kdcli.export.bits import narrow_tables

GRAPH = """<ir_version: 8, opset_import: ["": 17]>
g (int64[n] ids, float[n, 8] x) => (float[n, 8] found, float[8, n] y) {
    one = Gather (table, ids)
    two = Gather <axis = 0> (table, ids)
    both = Add (one, two)
    other = Gather (shared, ids)
    found = Add (both, other)
    twice = Gemm <transB = 1> (shared, x)
    y = Gather <axis = 0> (twice, some)
}"""
ROWS = 8


def write(file, table):
    model = parser.parse_model(GRAPH)
    values = {"table": table, "shared": table, "some": np.arange(8)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.save(model, file)


def run(file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["found"], {"ids": np.arange(ROWS), "x": np.zeros((ROWS, 8), np.float32)})[0]


def stored(file):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}


def table_of(seed):
    """Rows of very different sizes, and one of zeros."""
    table = np.random.default_rng(seed).normal(size=(ROWS, 8)) * 10.0 ** np.arange(-4, 4)[:, None]
    table[3] = 0
    return table.astype(np.float32)


def test_each_row_has_a_scale_of_its_own(tmp_path):
    table = table_of(1)
    write(tmp_path / "x.onnx", table)
    narrow_tables(tmp_path / "x.onnx", int8=True)
    found = run(tmp_path / "x.onnx")
    # Half a step of 127 to the row's largest value, in each of the two; the third table stays as it is.
    largest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(found - 3 * table) <= 2 * largest / 127 / 2 * (1 + 1e-5)).all()
    assert (np.abs(found - 3 * table) > 0).any()
    kept = stored(tmp_path / "x.onnx")
    assert kept["table"].dtype == np.int8 and np.array_equal(kept["shared"], table)


@pytest.mark.parametrize("exact", [True, False])
def test_16_bits_where_they_change_nothing(tmp_path, exact):
    table = table_of(2)
    table = table.astype(np.float16).astype(np.float32) if exact else table
    write(tmp_path / "x.onnx", table)
    before = run(tmp_path / "x.onnx")
    narrow_tables(tmp_path / "x.onnx")
    assert stored(tmp_path / "x.onnx")["table"].dtype == (np.float16 if exact else np.float32)
    assert np.array_equal(run(tmp_path / "x.onnx"), before)
    narrow_tables(tmp_path / "x.onnx", int8=True)  # of what is narrow already
    assert stored(tmp_path / "x.onnx")["table"].dtype == np.int8
    np.testing.assert_allclose(run(tmp_path / "x.onnx"), before, rtol=0, atol=np.abs(table).max() / 127 * 1.01)
