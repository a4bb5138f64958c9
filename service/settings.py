"""The settings of the service, read from the environment (`MNN_…`) and checked at start."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.classifier import DEFAULT_DRAWS
from model.preprocessing import MAX_PIXELS

MIB = 2**20


class Settings(BaseSettings):
    """Settings of one service process; `docs/configuration.md` lists them for the operator."""

    model_config = SettingsConfigDict(env_prefix="MNN_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` in a container.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severity that is logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="`json`: one object per line; `text`; `auto`: text at a terminal, else JSON.",
    )
    checkpoint: Path = Field(
        Path("checkpoints/digits.safetensors"),
        description="The model to serve if this file exists, else the bundled one.",
    )
    allow_bundled_model: bool = Field(
        True,
        description="Whether the bundled model may stand in for a missing checkpoint; if not, "
        "a missing file stops the start.",
    )
    reload_poll_interval_s: float = Field(
        2.0,
        ge=0,
        le=3600,
        description="Checkpoint poll interval in seconds; 0 disables reloading.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to compute; `auto` takes CUDA where it is available."
    )
    draws: int = Field(
        DEFAULT_DRAWS,
        ge=40,
        le=4096,
        description="Posterior draws held and used; the default level of 0.95 needs 40.",
    )
    worker_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads that compute answers, one core each; 0 takes one per granted CPU, "
        "or one for a GPU.",
    )
    max_upload_bytes: int = Field(
        10 * MIB, ge=1, description="The most bytes of one uploaded file."
    )
    max_body_bytes: int = Field(
        64 * MIB, ge=1, description="The most bytes of a whole batch request."
    )
    max_inflight_bytes: int = Field(
        128 * MIB,
        ge=1,
        description="The most bytes of request bodies held at once, in memory or on disk; more "
        "is answered 429.",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=100_000_000,
        description="The most pixels of a picture, read from its header.",
    )
    max_decoding_pixels: int = Field(
        100_000_000,
        ge=1,
        description="The most pixels decoded at once; workers wait for their turn.",
    )
    max_batch_files: int = Field(64, ge=1, description="The most files in one batch.")
    max_queued_images: int = Field(
        1024, ge=1, description="The most images that wait; more are answered 429."
    )
    request_timeout_s: float = Field(
        10.0, gt=0, description="Seconds from a complete body to its answer; later is 504."
    )
    body_timeout_s: float = Field(
        10.0, gt=0, description="Seconds within which a body must arrive; later is 408."
    )
    drain_delay_s: float = Field(
        3.0,
        ge=0,
        le=300,
        description="Seconds after SIGTERM in which requests are still accepted, for load "
        "balancers to see that the service is not ready.",
    )
    api_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key for `POST /model/reload`, sent as `Authorization: Bearer …`; at least "
        "16 printable ASCII characters. Without one, reloading by HTTP is off.",
    )
    require_api_key: bool = Field(
        False, description="Require the API key except for health, page and docs."
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may call the API, separated by commas "
        "(`https://forms.example`).",
    )

    @field_validator("api_key", mode="before")
    @classmethod
    def _sendable(cls, key: Any) -> Any:
        """Strip the key (files often end in a newline); check that a header can carry it."""
        text = key.get_secret_value() if isinstance(key, SecretStr) else key
        if not isinstance(text, str):
            return key
        text = text.strip()
        if not (text.isascii() and text.isprintable()):
            raise ValueError(
                "The key must consist of printable ASCII characters, since a header carries it; "
                "use one such as `openssl rand -hex 32` prints"
            )
        return text

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_inflight_bytes < self.max_body_bytes:
            raise ValueError("MNN_MAX_INFLIGHT_BYTES must be at least MNN_MAX_BODY_BYTES")
        if self.require_api_key and self.api_key is None:
            raise ValueError("MNN_REQUIRE_API_KEY needs a key in MNN_API_KEY")
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise ValueError(
                    f"MNN_CORS_ORIGINS: {origin!r} is not an origin such as https://forms.example"
                )
        return self

    @property
    def origins(self) -> list[str]:
        """The origins of `cors_origins`."""
        return [origin for part in (self.cors_origins or "").split(",") if (origin := part.strip())]


def find_misspelt(names: Iterable[str]) -> dict[str, str]:
    """Find variables that look like a setting but are none, each with the likely setting.

    An operator who writes `MNN_REQUIREAPIKEY=true` believes that a key is required.

    Args:
        names: The names of the environment's variables.
    """
    prefix = Settings.model_config["env_prefix"]
    settings = [f"{prefix}{name}".upper() for name in Settings.model_fields]
    unknown = {name for name in names if name.upper().startswith(prefix)}
    found = {}
    for name in sorted(unknown - set(settings)):
        near = difflib.get_close_matches(name.upper(), settings, n=1, cutoff=0.85)
        if near and near[0] != name.upper():  # names are case-insensitive
            found[name] = near[0]
    return found
