"""Checkpoint: one self-describing safetensors file with the posterior and the decision rules.

Tensors: for each weight and bias `NAME` of `ModelConfig.parameter_shapes`, `NAME.mean` and
`NAME.scale` (a standard deviation), float32. Metadata: JSON values, see `save_checkpoint`. No
pickle is read or written.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from model.architecture import ModelConfig
from model.decision import ConformalRule, SelectiveRule
from model.errors import CheckpointError
from model.posterior import Posterior
from model.preprocessing import INPUT_CONTRACT, SIDE
from model.system import write_atomically

BUNDLED = Path(__file__).parent / "weights" / "digits.safetensors"
"""The checkpoint that comes with this package."""

FORMAT = "maybe-neural-network 1"
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A posterior with its decision rules and provenance.

    Attributes:
        name: Name of the model.
        posterior: Distribution of the weights and the seed of its draws.
        digest: `Posterior.digest` of the installation that calibrated the rules.
        selective: When to accept a prediction.
        conformal: Which labels are in a prediction set.
        metrics: Held-out metrics, each group with its n.
        training: How the posterior was fitted, including data hashes and versions.
        input_contract: How images are preprocessed.
    """

    name: str
    posterior: Posterior
    digest: str
    selective: SelectiveRule
    conformal: ConformalRule
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    input_contract: str = INPUT_CONTRACT

    def version(self, n_draws: int) -> str:
        """Hash of everything that decides a prediction from `n_draws` draws: 12 hex digits."""
        sha = hashlib.sha256()
        architecture = asdict(self.posterior.config)
        del architecture["prior_scale"]  # decides the fit, not the predictions
        decisive = {
            "architecture": architecture,
            "input_contract": self.input_contract,
            "draws": n_draws,
            "seed": self.posterior.seed,
            "score": self.selective.score,
            "threshold": self.selective.threshold,
            "calibrated_draws": self.selective.n_draws,
            "conformal_threshold": self.conformal.threshold,
        }
        sha.update(json.dumps(decisive, sort_keys=True).encode())
        for name in self.posterior.config.parameter_shapes():
            for values in (self.posterior.mean[name], self.posterior.scale[name]):
                sha.update(np.ascontiguousarray(values, "<f4").tobytes())
        return sha.hexdigest()[:12]

    def draws_are_reproduced(self) -> bool:
        """Whether this installation reproduces the draws that the rules were calibrated with."""
        return self.posterior.digest() == self.digest


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: the file at `path` is the old one or the new one.

    The folder is created if missing.

    Raises:
        CheckpointError: If a tensor is not finite or has the wrong shape; nothing is written.
        OSError: If the file cannot be written; nothing is left behind.
    """
    posterior = checkpoint.posterior
    tensors = {
        f"{name}.{part}": np.ascontiguousarray(values[name])
        for name in posterior.config.parameter_shapes()
        for part, values in (("mean", posterior.mean), ("scale", posterior.scale))
    }
    _check_tensors(tensors, posterior.config, str(path))
    metadata = {
        "format": FORMAT,
        "name": checkpoint.name,
        "architecture": asdict(posterior.config),
        "input_contract": checkpoint.input_contract,
        "draws": {"seed": posterior.seed, "digest": checkpoint.digest},
        "selective": asdict(checkpoint.selective),
        "conformal": asdict(checkpoint.conformal),
        "metrics": checkpoint.metrics,
        "training": checkpoint.training,
    }
    encoded = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    write_atomically(path, safetensors.numpy.save(tensors, metadata=encoded))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and validate a checkpoint.

    Raises:
        CheckpointError: If the file is missing, truncated or not a checkpoint, or if a tensor or
            metadata value is missing, unknown, not finite, or of the wrong shape or type. The
            message names the file, the tensor, what was expected and what was found.
    """
    file = Path(path)
    data = _read(file)
    try:
        header_size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + header_size])["__metadata__"]
        tensors = safetensors.numpy.load(data)
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{file}: not a whole safetensors file with metadata: it is truncated, damaged or of "
            f"another kind ({type(error).__name__})"
        ) from error
    return _from_parts(str(file), metadata, tensors)


def _read(file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if not file.is_file():  # reading a device may never end
            raise CheckpointError(f"{file}: cannot be read (not a regular file)")
        if size > _MAX_BYTES:
            raise CheckpointError(f"{file}: {size:,} bytes, expected at most {_MAX_BYTES:,}")
        return file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such file") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error


def _from_parts(
    file: str, metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]
) -> Checkpoint:
    def value(key: str) -> Any:
        if key not in metadata:
            raise CheckpointError(f"{file}: metadata {key!r} is missing")
        try:
            return json.loads(metadata[key])
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{file}: metadata {key!r} is not JSON") from error

    if value("format") != FORMAT:
        raise CheckpointError(f"{file}: format {value('format')!r}, expected {FORMAT!r}")
    for key in ("metrics", "training"):
        if not isinstance(value(key), dict):
            raise CheckpointError(f"{file}: metadata {key!r} is {value(key)!r}, expected an object")
    contract = value("input_contract")
    if contract != INPUT_CONTRACT:
        raise CheckpointError(
            f"{file}: input contract {contract!r}, expected {INPUT_CONTRACT!r}; train again with "
            "this version"
        )
    try:
        config = ModelConfig.from_dict(value("architecture"))
        selective = SelectiveRule(**value("selective"))
        conformal = ConformalRule(**value("conformal"))
        draws = value("draws")
        names = config.parameter_shapes()
        _check_tensors(tensors, config, file)
        posterior = Posterior(
            config,
            mean={name: tensors[f"{name}.mean"] for name in names},
            scale={name: tensors[f"{name}.scale"] for name in names},
            seed=draws["seed"],
        )
        _check_numbers(config, selective, conformal)
        digest = str(draws["digest"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: metadata this version cannot use: {error}") from error
    return Checkpoint(
        name=str(value("name")),
        posterior=posterior,
        digest=digest,
        selective=selective,
        conformal=conformal,
        metrics=value("metrics"),
        training=value("training"),
        input_contract=contract,
    )


def _check_numbers(config: ModelConfig, selective: SelectiveRule, conformal: ConformalRule) -> None:
    """Validate the numbers of the rules: comparisons with NaN or text would fail silently."""
    if config.image_size != SIDE:
        raise ValueError(f"image_size is {config.image_size}, expected {SIDE}")
    counts = {
        "n_draws": selective.n_draws,
        "selective n_calibration": selective.n_calibration,
        "conformal n_calibration": conformal.n_calibration,
    }
    for name, count in counts.items():
        if type(count) is not int or count < 2:
            raise ValueError(f"{name} is {count!r}, expected a whole number of at least 2")
    if type(selective.population) is not str:
        raise ValueError(f"population is {selective.population!r}, expected text")
    numbers = {
        "selective threshold": selective.threshold,
        "selective target": selective.target,
        "selective confidence": selective.confidence,
        "conformal threshold": conformal.threshold,
        "conformal coverage": conformal.coverage,
    }
    for name, number in numbers.items():
        if type(number) not in (int, float) or not np.isfinite(number):
            raise ValueError(f"{name} is {number!r}, expected a finite number")
        if not name.endswith("threshold") and not 0 < number < 1:
            raise ValueError(f"{name} is {number!r}, expected a share between 0 and 1")


def _check_tensors(tensors: Mapping[str, NDArray[Any]], config: ModelConfig, file: str) -> None:
    shapes = config.parameter_shapes()
    expected = {f"{name}.{part}" for name in shapes for part in ("mean", "scale")}
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        raise CheckpointError(
            f"{file}: not the tensors of its architecture: missing {', '.join(missing) or 'none'}; "
            f"unknown {', '.join(unknown) or 'none'}"
        )
    for name, part in product(shapes, ("mean", "scale")):
        tensor, where = tensors[f"{name}.{part}"], f"{file}: tensor {name}.{part}"
        if tensor.shape != shapes[name]:
            raise CheckpointError(f"{where} has shape {tensor.shape}, expected {shapes[name]}")
        if tensor.dtype != np.float32:
            raise CheckpointError(f"{where} has type {tensor.dtype}, expected float32")
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{where} has values that are not finite")
        if part == "scale" and not (tensor > 0).all():
            raise CheckpointError(f"{where} must be above 0 everywhere")
