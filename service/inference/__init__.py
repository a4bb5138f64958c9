"""Inference scheduling: jobs, the fair queue, the worker pool."""
