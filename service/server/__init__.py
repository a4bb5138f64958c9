"""The HTTP server: uvicorn with graceful shutdown and bounded connections."""
