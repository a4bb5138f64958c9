"""ASGI middleware: request context, body limits, load shedding, API key, HEAD."""
