"""ONNX Runtime, told before it is loaded that it reports to nobody.

From version 1.29 on, its builds for Linux tell their makers of every session that is created,
unless this variable is set when the library is loaded; `disable_telemetry_events` comes too late.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
