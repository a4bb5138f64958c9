"""Compared servers, and how `benchmarks.serving.serve` starts, loads and measures them.

`fastapi_loop`, `litserve_app` and `bentoml_app` are the servers that a user would otherwise write;
`common` makes the answer of all three.
"""
