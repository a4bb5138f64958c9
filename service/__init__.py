"""The HTTP service: settings → app → routes → worker pool. `create_app` is the way in."""

from service.app import create_app
from service.settings import Settings

__all__ = ["Settings", "create_app"]
