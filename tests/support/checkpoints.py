"""Checkpoints of networks small enough to check by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from model import Checkpoint, ConformalRule, Conv, ModelConfig, SelectiveRule
from model.posterior import Posterior
from model.system.atomic_write import write_atomically

TINY = ModelConfig(convs=(Conv(2, 5, pool=True), Conv(3, 3, pool=True)), hidden=(6,))


def tiny_posterior(config: ModelConfig = TINY, *, scale: float = 0.1, seed: int = 3) -> Posterior:
    """A posterior of random means for a network small enough to check by hand."""
    rng = np.random.default_rng(seed)
    shapes = config.parameter_shapes()
    return Posterior(
        config,
        mean={n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()},
        scale={n: np.full(s, scale, np.float32) for n, s in shapes.items()},
        seed=seed,
    )


def tiny_checkpoint(
    config: ModelConfig = TINY, *, n_draws: int = 20, threshold: float = 2.0
) -> Checkpoint:
    """A checkpoint around `tiny_posterior`, with rules of round numbers."""
    posterior = tiny_posterior(config)
    return Checkpoint(
        name="digits",
        posterior=posterior,
        digest=posterior.digest(),
        selective=SelectiveRule(
            "predictive_entropy", threshold, 0.01, 0.95, 1000, n_draws, "nothing in particular"
        ),
        conformal=ConformalRule(0.9, 0.8, 1000),
        metrics={"test": {"n": 10, "error": 0.5}},
        training={"dataset": "none"},
    )


def spoil(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], object]) -> None:
    """Change the tensors or the metadata of a checkpoint in place, behind the writer's back."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    encoded = json.loads(data[8 : 8 + size])["__metadata__"]
    metadata = {key: json.loads(value) for key, value in encoded.items()}
    tensors = {name: values.copy() for name, values in safetensors.numpy.load(data).items()}
    change(tensors, metadata)
    again = {key: json.dumps(value) for key, value in metadata.items()}
    # At once: a service that polls the file must not meet half of it.
    write_atomically(path, safetensors.numpy.save(tensors, metadata=again))
