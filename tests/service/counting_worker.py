"""A worker that counts requests when told, and nothing else.

`python -m tests.service.counting_worker COUNT DESCRIPTOR WORKERS PLACE`, the descriptor that of shared tallies.
"""

import sys

from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.tallies import SharedTallies

OUTCOMES = ((200, None), (429, "queue_full"), (504, "deadline"), (200, None), (422, None))


def main(count: int, descriptor: int, workers: int, place: int) -> None:
    """Begin `count` requests, say so, wait for a line, and end them one after the other."""
    metrics = Metrics(["/classify"], SharedTallies(workers, descriptor).of_worker(place))
    metrics.add_requests_series("alpha")
    for _ in range(count):
        metrics.began()
    sys.stdout.write("began\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(count):
        status, reason = OUTCOMES[number % len(OUTCOMES)]
        metrics.ended("alpha", "/classify", status, 0.001, reason)
    sys.stdin.readline()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
