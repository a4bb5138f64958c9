"""Answer the jobs of a request, and record where the time went."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from service.inference.jobs import Job, JobResult
from service.inference.worker_pool import WorkerPool
from service.observability.metrics import Metrics
from service.request_state import request_state


async def run_jobs(
    request: Request,
    jobs: Sequence[Job],
    *,
    pool: WorkerPool,
    metrics: Metrics,
    since: float | None = None,
) -> list[JobResult]:
    """Have the pool answer jobs, unless the client leaves.

    Args:
        request: The request, whose body has been received.
        jobs: One for each image.
        pool: The worker pool.
        metrics: Record times and predictions.
        since: When the time for the answer began, by `time.monotonic`; default: now.

    Raises:
        ProblemError: As `WorkerPool.run` does.
        ClientDisconnect: If the client has left.
    """
    state = request_state(request.scope)
    client_left = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        results = await pool.run(
            jobs, reservation=state.reservation, client_left=client_left, since=since
        )
    finally:
        client_left.cancel()
    predictions = [result.prediction for result in results if result.prediction is not None]
    for result in results:
        metrics.record_times(result.queue_ms, result.compute_ms)
    for prediction in predictions:
        metrics.record_prediction(prediction)
    state.log_fields.update(
        images=len(jobs),
        answered=len(predictions),
        accepted=sum(prediction.decision == "accept" for prediction in predictions),
    )
    state.queue_ms = max((result.queue_ms for result in results), default=0.0)
    answered_ms = max((result.queue_ms + result.compute_ms for result in results), default=0.0)
    state.compute_ms = answered_ms - state.queue_ms
    return results


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
