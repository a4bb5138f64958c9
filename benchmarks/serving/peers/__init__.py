"""What `benchmarks.serving.serve` needs: the contenders, their servers, and how load and cost are measured.

`fastapi_loop`, `litserve_app` and `bentoml_app` are the servers that somebody else would write;
`common` is the answer that all three give.
"""
