"""The API key of the services that the tests start."""

__all__ = ["KEY", "bearer"]

KEY = "sixteen characters or more"


def bearer(key: str = KEY) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"}
