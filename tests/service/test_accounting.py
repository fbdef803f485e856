"""Claims about what /metrics adds up to: in = out + rejected + in progress, at every scrape."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ladabert_serve.errors import OUTCOMES, StartError
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.observability.tallies import SharedTallies, Tallies, WorkerTallies, own_tallies
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
def counting_workers(tallies: SharedTallies, requests: int) -> "Iterator[list[subprocess.Popen[str]]]":
    """Worker processes that have begun their requests and end them when told."""
    workers = len(tallies.everyone)
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.service.counting_worker"]
                    + [str(number) for number in (requests, tallies.descriptor, workers, place)],
                    cwd=REPOSITORY,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[tallies.descriptor],
                    text=True,
                )
            )
            for place in range(workers)
        ]
        for process in processes:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "began\n"
        yield processes


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("end them\n")
    process.stdin.flush()


def scrape_workers(tallies: SharedTallies) -> Page:
    return Page(generate_latest(Metrics([], WorkerTallies(own_tallies().own, tallies.everyone)).registry).decode())


@pytest.mark.parametrize("number", [2, 3])
def test_the_sum_over_several_workers_is_right_at_every_scrape(number: int) -> None:
    requests = 20000
    tallies = SharedTallies(number)
    with counting_workers(tallies, requests) as workers:
        assert scrape_workers(tallies).in_progress == number * requests
        for worker in workers:
            tell(worker)
        seen = []
        for _ in range(SCRAPES):
            page = scrape_workers(tallies)
            assert page.taken_in == number * requests
            assert page.refusals == page.rejected
            seen.append(page.in_progress)
            if page.in_progress == 0:
                break
        assert seen[-1] == 0
        assert seen == sorted(seen, reverse=True)
        assert any(0 < in_progress < number * requests for in_progress in seen)


def test_a_worker_that_is_stopped_or_killed_at_any_moment_neither_holds_up_a_scrape_nor_spoils_it() -> None:
    requests = 100_000
    tallies = SharedTallies(1)
    with counting_workers(tallies, requests) as (worker,):
        tell(worker)
        for _ in range(100):
            worker.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
            page = scrape_workers(tallies)
            assert (page.taken_in, page.refusals) == (requests, page.rejected)
            worker.send_signal(signal.SIGCONT)
        worker.kill()
        worker.wait()
        tallies.everyone[0].end()
        last = scrape_workers(tallies)
    assert page.out <= last.out
    assert (last.in_progress, last.refusals) == (0, last.rejected)


def test_counters_never_fall_and_take_no_more_room_however_often_a_worker_is_killed() -> None:
    tallies = SharedTallies(2)
    rows = set()
    for process in range(1, 101):
        metrics = Metrics(["/classify"], tallies.of_worker(0))
        model_metrics = ModelMetrics(metrics, "alpha", "1", "fp32", 2.0, "cpu", ("NEGATIVE", "POSITIVE"))
        model_metrics.ready_changed(1)
        model_metrics.queue_depth_changed(7)
        for _ in range(3):  # one of them is never answered
            metrics.began()
        metrics.ended("alpha", "/classify", 200, 0.001, None)
        metrics.ended("alpha", "/classify", 429, 0.001, "queue_full")
        page = scrape_workers(tallies)
        assert (page.out, page.rejected, page.in_progress) == (process, process, 1)
        tallies.everyone[0].end()
        page = scrape_workers(tallies)
        assert (page.out, page.rejected, page.in_progress) == (process, process, 0)
        rows.add(len(tallies.everyone[0].rows()))
    assert len(rows) == 1


def test_what_a_process_left_half_written_when_it_was_killed_does_not_count() -> None:
    memory = bytearray(4096)
    first = Tallies(memoryview(memory))
    first.row(("whole",), 3)
    used = memory[:8]
    index = first.row(("a row with a long name, whose last word was not written",), 3)
    first.numbers[index] = 5.0
    memory[:8] = used
    second = Tallies(memoryview(memory))
    assert list(second.rows()) == [("whole",)]
    index = second.row(("next",), 40)
    assert second.numbers[index : index + 40].tolist() == [0.0] * 40
    assert list(second.rows()) == [("whole",), ("next",)]


def test_more_models_than_there_is_room_for_stop_the_start_with_a_reason() -> None:
    tallies = Tallies(memoryview(bytearray(1024)))
    tallies.row(("ladabert_queue_depth", "alpha"), 100)
    with pytest.raises(StartError, match="no room"):
        tallies.row(("ladabert_queue_depth", "beta"), 100)
    assert list(tallies.rows()) == [("ladabert_queue_depth", "alpha")]


def test_series_that_were_removed_are_gone_for_every_reader_and_requests_still_add_up() -> None:
    tallies = SharedTallies(2)
    workers = [Metrics(["/classify"], tallies.of_worker(place)) for place in (0, 1)]
    models = [ModelMetrics(metrics, "alpha", "1", "fp32", 2.0, "cpu", ("NO", "YES")) for metrics in workers]
    for metrics in workers:
        ModelMetrics(metrics, "beta", "1", "fp32", 2.0, "cpu", ("NO", "YES"))
        for model in ("alpha", "beta"):
            for _ in range(3):  # one of them is never answered
                metrics.began()
            for _ in range(2):
                metrics.ended(model, "/classify", 200, 0.001, None)
    page = scrape_workers(tallies)
    assert (page.out, page.in_progress) == (8, 4)
    workers[0].remove(models[0].keys)
    page = scrape_workers(tallies)
    assert (page.out, page.in_progress) == (6, 4)
    workers[1].remove(models[1].keys)
    text = generate_latest(Metrics([], WorkerTallies(own_tallies().own, tallies.everyone)).registry).decode()
    assert 'model="alpha"' not in text
    assert 'model="beta"' in text
    workers[0].ended("alpha", "/classify", 200, 0.001, None)  # of a model that was unloaded meanwhile
    page = scrape_workers(tallies)
    assert (page.out, page.in_progress) == (5, 3)


def test_the_sum_is_right_at_every_scrape_while_models_come_and_go() -> None:
    tallies = SharedTallies(1)
    metrics = Metrics(["/classify"], tallies.of_worker(0))
    reader = Metrics([], WorkerTallies(own_tallies().own, tallies.everyone))
    done = threading.Event()
    rounds = 300

    def come_and_go() -> None:
        for number in range(rounds):
            model = ModelMetrics(metrics, f"model-{number % 7}", "1", "fp32", 2.0, "cpu", ("NO", "YES"))
            metrics.began()
            metrics.ended(f"model-{number % 7}", "/classify", 200, 0.001, None)
            metrics.remove(model.keys)
        done.set()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    pages = 0
    while not done.is_set() or not pages:
        page = Page(generate_latest(reader.registry).decode())
        assert page.in_progress in (0, 1)
        pages += 1
    thread.join()
    assert Page(generate_latest(reader.registry).decode()).taken_in == 0


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 40)),
        max_size=60,
    )
)
def test_rows_that_come_and_go_keep_their_numbers_and_use_the_room_of_those_that_went(
    steps: list[tuple[bool, int, int]],
) -> None:
    memory = bytearray(1 << 16)
    own, reader = Tallies(memoryview(memory)), Tallies(memoryview(memory))
    expected: dict[tuple[str, ...], list[float]] = {}
    for adds, name, width in steps:
        key = ("x" * name, "é")
        if adds and key not in expected:
            index = own.row(key, width)
            assert own.numbers[index : index + width].tolist() == [0.0] * width
            values = [name * 1000.0 + number for number in range(width)]
            for number, value in enumerate(values):
                own.numbers[index + number] = value
            expected[key] = values
        elif not adds and key in expected:
            with own.removing([key]):
                pass
            del expected[key]
        for tallies in (own, reader, Tallies(memoryview(memory))):
            found = {key: tallies.numbers[place.start : place.stop].tolist() for key, place in tallies.rows().items()}
            assert found == expected


def test_models_of_ever_new_names_need_no_more_room() -> None:
    tallies = SharedTallies(1)
    metrics = Metrics(["/classify"], tallies.of_worker(0))
    used = set()
    for number in range(100):
        model = ModelMetrics(metrics, f"model-{number:04}", "1", "fp32", 2.0, "cpu", ("NO", "YES"))
        used.add(tallies.everyone[0]._words[0])
        metrics.remove(model.keys)
    assert len(used) == 1


def test_a_process_that_was_killed_in_the_middle_of_a_removal_holds_up_no_scrape_and_the_next_one_goes_on() -> None:
    tallies = SharedTallies(1)
    metrics = Metrics(["/classify"], tallies.of_worker(0))
    model = ModelMetrics(metrics, "alpha", "1", "fp32", 2.0, "cpu", ("NO", "YES"))
    metrics.began()
    metrics.ended("alpha", "/classify", 200, 0.001, None)
    removal = tallies.everyone[0].removing(model.keys)
    removal.__enter__()  # and no more
    assert scrape_workers(SharedTallies(1, os.dup(tallies.descriptor))).out == 1
    successor = SharedTallies(1, os.dup(tallies.descriptor))
    Metrics(["/classify"], successor.of_worker(0))
    page = scrape_workers(successor)
    assert (page.out, page.in_progress) == (1, 0)
    assert tallies.everyone[0]._words[2] % 2 == 0
