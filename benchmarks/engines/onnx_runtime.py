"""ONNX Runtime: predictions of the workload's net, exported as Gemm nodes."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..workloads import Workload
from . import Run, UnsupportedError, repeat


def exported(work: Workload) -> bytes:
    """The net as an ONNX model: input "x" (rows, inputs), output "y"."""
    nodes, constants, value = [], [], "x"
    for i, (weight, bias) in enumerate(work.weights()):
        last = i == len(work.shapes) - 1
        constants += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], ["y" if last else f"z{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [f"h{i}"]))
        value = f"h{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [work.batch, width])
        for name, width in (("x", work.widths[0]), ("y", work.widths[-1]))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    # Old versions, which every runtime reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def predict(work: Workload, threads: int, dtype: str) -> Run:
    if dtype != "float32":
        raise UnsupportedError("the exported net is float32.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(exported(work), options, providers=["CPUExecutionProvider"])
    outputs, inputs = ["y"], {"x": np.ascontiguousarray(work.features())}
    return repeat(lambda: session.run(outputs, inputs))


def state() -> dict[str, object]:
    return {"version": onnxruntime.__version__}
