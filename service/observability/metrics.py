"""Prometheus metrics: how much is asked, how long it takes, what is answered.

Queue wait and compute time are separate: more machines help only against the first. Entropy and
decisions show a drift of the inputs first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from model.classifier import Prediction
from model.types import Decision, Reason
from service.errors import Rejection

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_NATS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1, 1.5, 2)
_PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)

# Methods that clients invent must not become time series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application, in a registry of their own.

    Args:
        pending: Returns how many images are admitted and not yet answered.
        ready: Returns whether load balancers should send requests here.
    """

    def __init__(self, pending: Callable[[], int], ready: Callable[[], bool]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def histogram(
            name: str, help_text: str, buckets: Sequence[float], labels: Sequence[str] = ()
        ) -> Histogram:
            return Histogram(name, help_text, labels, buckets=buckets, registry=registry)

        def counter(name: str, help_text: str, label: str, values: Iterable[str]) -> Counter:
            made = Counter(name, help_text, [label], registry=registry)
            for value in values:
                made.labels(value)  # exported from the start, at 0
            return made

        self._requests = Counter(
            "mnn_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._duration = histogram(
            "mnn_request_duration_seconds",
            "From a request's complete headers to the headers of its answer.",
            _SECONDS,
            ["route"],
        )
        self._internal_errors = Counter(
            "mnn_internal_errors_total",
            "Internal errors: requests, and files of batches, that were answered 500.",
            registry=registry,
        )
        self._rejections = counter(
            "mnn_rejections_total", "Rejected requests by reason.", "reason", get_args(Rejection)
        )
        self._queue_wait = histogram(
            "mnn_queue_wait_seconds", "From an image's admission to a worker taking it.", _SECONDS
        )
        self._compute = histogram(
            "mnn_compute_seconds",
            "From a worker taking an image to its answer: decoding and inference.",
            _SECONDS,
        )
        self._worker_busy = Counter(
            "mnn_worker_busy_seconds_total",
            "Time that all workers spent on batches.",
            registry=registry,
        )
        Gauge(
            "mnn_pending_images", "Images admitted and not yet answered.", registry=registry
        ).set_function(pending)
        self._entropy = histogram(
            "mnn_predictive_entropy_nats", "Predictive entropy of the answers.", _NATS
        )
        self._not_a_digit = histogram(
            "mnn_not_a_digit_probability",
            "The probability that an image is not a digit.",
            _PROBABILITIES,
        )
        self._decisions = counter(
            "mnn_decisions_total", "Answers by decision.", "decision", get_args(Decision)
        )
        self._reasons = counter(
            "mnn_review_reasons_total",
            "Reasons for review; an answer may have several.",
            "reason",
            get_args(Reason),
        )
        self._model = Info("mnn_model", "The model in service.", registry=registry)
        Gauge(
            "mnn_ready", "1 while load balancers should send requests here.", registry=registry
        ).set_function(ready)
        self._reloads = counter(
            "mnn_reloads_total", "Model reloads by outcome.", "outcome", ("success", "failure")
        )

    def record_request(
        self, route: str, method: str, status: int, seconds: float, *, rejection: str | None = None
    ) -> None:
        """Count a request.

        Args:
            route: The route template.
            method: Its HTTP method.
            status: The status of its answer.
            seconds: The time to the headers of its answer.
            rejection: Why it was rejected, if it was.
        """
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._duration.labels(route).observe(seconds)
        if rejection is not None:
            self._rejections.labels(rejection).inc()
        if status == 500:
            self.record_internal_error()

    def record_internal_error(self) -> None:
        """Count an internal error, also of one file of a batch whose own status is 200."""
        self._internal_errors.inc()

    def record_busy_worker(self, seconds: float) -> None:
        """Add the time that a worker spent on a batch. Any thread may call it."""
        self._worker_busy.inc(seconds)

    def record_times(self, queue_ms: float, compute_ms: float) -> None:
        """Record queue wait and compute time of an image, in milliseconds."""
        self._queue_wait.observe(queue_ms / 1000)
        self._compute.observe(compute_ms / 1000)

    def record_prediction(self, prediction: Prediction) -> None:
        """Record what was answered for an image."""
        self._entropy.observe(prediction.predictive_entropy)
        if prediction.not_a_digit is not None:
            self._not_a_digit.observe(prediction.not_a_digit.probability)
        self._decisions.labels(prediction.decision).inc()
        for reason in prediction.reasons:
            self._reasons.labels(reason).inc()

    def record_model(self, *, name: str, version: str, source: str) -> None:
        """Record which model is in service from now on."""
        self._model.info({"name": name, "version": version, "source": source})

    def record_reload(self, *, success: bool) -> None:
        """Count a reload."""
        self._reloads.labels("success" if success else "failure").inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
