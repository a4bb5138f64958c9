"""What `GET /metrics` tells, as numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Samples", "counted", "metric_value", "read_metrics"]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by the metric's name and labels."""


def read_metrics(client: httpx.Client) -> Samples:
    """Ask a service for its metrics."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@contextmanager
def counted(client: httpx.Client) -> Iterator[Samples]:
    """Give what each value grows by within the block; the result is filled in at its end."""
    before, growth = read_metrics(client), Samples()
    yield growth
    growth |= {key: value - before.get(key, 0.0) for key, value in read_metrics(client).items()}


def metric_value(samples: Samples, metric: str, /, **labels: str) -> float:
    """Return one value, 0 where there is none."""
    return samples.get((metric, frozenset(labels.items())), 0.0)
