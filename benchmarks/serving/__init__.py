"""Benchmarks of the HTTP service: other servers, scaling, containers, the page in a browser."""
