"""Claims about what /metrics adds up to: in = out + rejected + in progress, at every scrape."""

import contextlib
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import OUTCOMES
from service.metrics import MULTIPROCESS_VARIABLE, render, take_snapshot_of_workers
from tests.service.conftest import Server
from tests.service.gated import Gated, gated, hang_up_while_waiting
from tests.service.tiny_artefact import REPOSITORY

REJECTED = {str(outcome.status) for outcome in OUTCOMES.values() if outcome.rejected_reason is not None}
SCRAPES = 1000  # at most


class Page:
    """One scrape of /metrics."""

    def __init__(self, text: str) -> None:
        self.in_progress = self.rejected = self.out = 0.0
        self.statuses: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "ladabert_requests_in_progress":
                    self.in_progress += sample.value
                elif sample.name == "ladabert_rejected_total":
                    self.rejected += sample.value
                elif sample.name == "ladabert_requests_total":
                    self.statuses[sample.labels["status"]] += int(sample.value)
        self.out = self.statuses.total() - self.rejected

    @property
    def taken_in(self) -> float:
        """Requests that came, wherever they are now."""
        return self.out + self.rejected + self.in_progress

    @property
    def refusals(self) -> int:
        """Answers with a status that rejections have."""
        return sum(self.statuses[status] for status in REJECTED)


def scrape(server: Server) -> Page:
    return Page(server.get("/metrics").text)


def test_every_request_is_in_progress_or_out_or_rejected_while_several_wait(models: Path) -> None:
    def check(waiting: Gated, sent: int, in_progress: int, rejected: int) -> None:
        page = scrape(waiting.server)
        assert (page.taken_in, page.in_progress, page.rejected, page.refusals) == (
            sent,
            in_progress,
            rejected,
            rejected,
        )

    with gated(models, max_queue_requests=4, max_inputs=3) as waiting:
        server = waiting.server
        check(waiting, sent=0, in_progress=0, rejected=0)
        threads = [waiting.ask()]
        waiting.wait_at_gate()
        check(waiting, sent=1, in_progress=1, rejected=0)
        threads += [waiting.ask() for _ in range(3)]
        waiting.wait_for_depth(3)
        check(waiting, sent=4, in_progress=4, rejected=0)
        assert server.classify({"inputs": "a", "timeout_ms": 1}).status_code == 504
        check(waiting, sent=5, in_progress=4, rejected=1)
        hang_up_while_waiting(server, lambda: waiting.wait_for_depth(4))
        check(waiting, sent=6, in_progress=4, rejected=2)
        threads.append(waiting.ask())
        waiting.wait_for_depth(4)
        assert server.classify({"inputs": "a"}).status_code == 429
        check(waiting, sent=8, in_progress=5, rejected=3)
        assert server.classify({"inputs": ["a"] * 4}).status_code == 413
        check(waiting, sent=9, in_progress=5, rejected=4)
        assert server.post_raw(b"{").status_code == 400
        check(waiting, sent=10, in_progress=5, rejected=4)
        server.app.state.services.registry.drain()
        assert server.classify({"inputs": "a"}).status_code == 503
        check(waiting, sent=11, in_progress=5, rejected=5)
        waiting.backend.gate.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in waiting.answers] == [200] * 5
        check(waiting, sent=11, in_progress=0, rejected=5)


def test_the_sum_is_right_at_every_scrape_while_callers_come_and_go(models: Path) -> None:
    sent: list[None] = []  # before a request leaves, and
    answered: list[None] = []  # after its answer came

    def call() -> None:
        for number in range(25):
            sent.append(None)
            waiting.server.classify({"inputs": ["a"] * (1 + number % 4)})
            answered.append(None)

    with gated(models, max_inputs=3, runners=2) as waiting:
        waiting.backend.gate.set()
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        pages = 0
        while any(thread.is_alive() for thread in threads) or not pages:
            least = len(answered)
            page = scrape(waiting.server)
            assert least <= page.taken_in <= len(sent)
            assert page.refusals == page.rejected
            pages += 1
        page = scrape(waiting.server)
        assert (page.taken_in, page.in_progress) == (200, 0)


@contextlib.contextmanager
def counting_workers(folder: Path, number: int, requests: int) -> "Iterator[list[subprocess.Popen[str]]]":
    """Worker processes that have begun their requests and end them when told."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.service.counting_worker", str(requests)],
                    cwd=REPOSITORY,
                    env={**os.environ, MULTIPROCESS_VARIABLE: str(folder)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(number)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "began\n"
        yield workers


@pytest.mark.parametrize("number", [2, 3])
def test_the_sum_over_several_workers_is_right_at_every_scrape(tmp_path: Path, number: int) -> None:
    def scrape() -> Page:
        return Page(render(take_snapshot_of_workers(tmp_path), "")[0].decode())

    requests = 5000
    with counting_workers(tmp_path, number, requests) as workers:
        assert scrape().in_progress == number * requests
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("end them\n")
            worker.stdin.flush()
        seen = []
        for _ in range(SCRAPES):
            page = scrape()
            assert page.taken_in == number * requests
            assert page.refusals == page.rejected
            seen.append(page.in_progress)
            if page.in_progress == 0:
                break
        assert seen[-1] == 0
        assert seen == sorted(seen, reverse=True)
        assert any(0 < in_progress < number * requests for in_progress in seen)
