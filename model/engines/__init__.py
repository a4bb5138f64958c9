"""Inference engines: from 28×28 inputs to the logits of every posterior draw.

`make_engine` imports ONNX Runtime or PyTorch only when it needs it.
"""

from model.engines.engine import Engine, has_cuda_device, make_engine

__all__ = ["Engine", "has_cuda_device", "make_engine"]
