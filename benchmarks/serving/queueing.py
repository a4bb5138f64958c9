"""How long requests wait, by queueing theory: to hold measurements against, and to size by."""

import math

__all__ = ["busy_probability", "mean_wait", "wait_percentile"]


def busy_probability(n_servers: int, load: float) -> float:
    """The probability that whoever comes finds all servers busy (Erlang's C formula).

    Args:
        n_servers: Servers, c >= 1.
        load: Offered load a = λS in servers, 0 <= a < c.

    Raises:
        ValueError: If the load is more than there are servers for.

    Source:
        Kleinrock (1975), Queueing Systems I, equation 3.40; by way of Erlang's B and its recursion.
    """
    if not 0 <= load < n_servers:
        raise ValueError(f"a load of {load} cannot be served by {n_servers}")
    blocked = 1.0
    for n in range(1, n_servers + 1):
        blocked = load * blocked / (n + load * blocked)
    utilisation = load / n_servers
    return blocked / (1 - utilisation * (1 - blocked))


def mean_wait(
    n_servers: int,
    load: float,
    service_s: float,
    *,
    service_cv2: float = 0.0,
    arrival_cv2: float = 1.0,
) -> float:
    """Mean seconds between a request's arrival and the beginning of its service, in G/G/c.

    Args:
        n_servers: Servers behind one queue.
        load: Offered load in servers.
        service_s: Mean service time.
        service_cv2: Squared coefficient of variation of the service times; 0 if they are alike.
        arrival_cv2: The same of the times between arrivals; 1 for a Poisson process.

    Source:
        Allen (1990), Probability, Statistics, and Queueing Theory, section 5.3.5 (Allen and
        Cunneen's approximation; exact for M/M/c and M/G/1).
    """
    exponential = busy_probability(n_servers, load) * service_s / (n_servers - load)
    return exponential * (arrival_cv2 + service_cv2) / 2


def wait_percentile(n_servers: int, load: float, mean_wait_s: float, percent: float) -> float:
    """Seconds that so many percent of the requests do not wait longer than.

    Whoever waits is taken to wait for an exponential time, as is exact for M/M/c.

    Args:
        n_servers: Servers behind one queue.
        load: Offered load in servers.
        mean_wait_s: Mean wait of all requests.
        percent: Which percentile, below 100.
    """
    waits = busy_probability(n_servers, load)
    late = 1 - percent / 100
    return 0.0 if waits <= late else mean_wait_s / waits * math.log(waits / late)
