"""ONNX graphs in fewer bits: tables in 16 or 8, which all runtimes read, and computing in 8, which is faster.

What a text gets from tables in 8 bits does not depend on its batch; from computing in 8 bits it does, a little.
"""

from pathlib import Path

import numpy as np

from kdcli.errors import KdError, first_line
from kdcli.models.inference import narrow

QUANTISED = ("Conv", "LSTM", "MatMul")  # operators that compute in 8 bits; onnxruntime has no such GRU


def quantise(source: Path, target: Path) -> None:
    """Store recurrence and layers in 8 bits, a scale for each row; what onnxruntime cannot do is a ``KdError``."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shaped = source.with_name(f".{source.name}")
    try:
        quant_pre_process(source, shaped, skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(
            shaped,
            target,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            # 7 bits of the 8: AVX2 without VNNI adds two products in 16 bits, and full weights would saturate there.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    except Exception as error:
        hint = "--no-int8 leaves the 8-bit graph out"
        raise KdError(f"onnxruntime cannot quantise this graph: {first_line(error)}", hint=hint) from error
    finally:
        shaped.unlink(missing_ok=True)


def narrow_tables(file: Path, *, int8: bool = False) -> None:
    """Store the tables of a graph, whose rows are looked up, in 16 bits where that changes none; with ``int8`` in 8.

    With 8 bits each row has a scale of its own; ``quantize_dynamic`` has one for a whole table.
    """
    from onnx import NodeProto, TensorProto, helper, load, numpy_helper, save

    def looks_up(node: NodeProto) -> bool:
        return node.op_type == "Gather" and not any(one.i for one in node.attribute)

    model = load(file)
    graph, nodes = model.graph, []
    names = {node.input[0] for node in graph.node if looks_up(node)}
    names -= {name for node in graph.node if not looks_up(node) for name in node.input}
    names &= {one.name for one in graph.initializer if len(one.dims) > 1}
    floats = TensorProto.FLOAT, TensorProto.FLOAT16
    tables = {one.name: one for one in graph.initializer if one.name in names and one.data_type in floats}
    for name, table in tables.items():
        values = numpy_helper.to_array(table)  # [rows, size]
        if int8:
            scales = np.abs(values).max(axis=1, keepdims=True).astype(np.float32) / 127
            values = np.rint(values / np.where(scales, scales, 1)).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        table.CopyFrom(numpy_helper.from_array(narrow(values), name))
    for node in graph.node:
        nodes.append(node)
        if looks_up(node) and node.input[0] in tables:
            (name, rows), found = node.input, node.output[0]
            node.output[0], whole = f"{found}_stored", f"{found}_whole" if int8 else found
            nodes.append(helper.make_node("Cast", [node.output[0]], [whole], to=TensorProto.FLOAT))
            if int8:
                nodes.append(helper.make_node("Gather", [f"{name}_scales", rows], [f"{found}_scales"]))
                nodes.append(helper.make_node("Mul", [whole, f"{found}_scales"], [found]))
    graph.ClearField("node")
    graph.node.extend(nodes)
    save(model, file)
