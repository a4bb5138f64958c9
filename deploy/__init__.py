"""The service on several machines: `ray_app` is its application for Ray Serve."""
