"""Benchmarks of the HTTP service: beside other servers, scaled out, in containers, in a browser."""
