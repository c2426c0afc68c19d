"""OpenVINO: the net exported for ONNX Runtime, tuned for latency, memory shared with the caller."""

import openvino

from ..workloads import Workload
from . import Run, UnsupportedError, repeat
from .onnx_runtime import exported


def predict(work: Workload, threads: int, dtype: str) -> Run:
    if dtype != "float32":
        raise UnsupportedError("the exported net is float32.")
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(exported(work)), "CPU", settings).create_infer_request()
    inputs = {0: work.features()}
    return repeat(lambda: request.infer(inputs, share_inputs=True, share_outputs=True))


def state() -> dict[str, object]:
    return {"version": openvino.get_version()}
