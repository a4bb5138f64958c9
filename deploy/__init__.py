"""Deployment examples; `ray_app` is the application for Ray Serve."""
