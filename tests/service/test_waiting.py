"""Claims about requests that wait: refused, late, left, drained; with a backend that runs when told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.backend import FloatArray
from tests.service.gated import gated, hang_up_while_waiting, metric, rejected
from tests.service.test_classify import check_problem


def test_a_full_queue_is_429_with_retry_after(models: Path) -> None:
    with gated(models, max_queue_requests=1) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        queued = waiting.ask()
        waiting.wait_for_depth(1)
        response = waiting.server.classify({"inputs": "a"})
        check_problem(response, 429)
        assert response.headers["retry-after"] == "1"
        assert rejected(waiting.server, "queue_full") == 1
        waiting.backend.gate.set()
        running.join()
        queued.join()
        assert [answer.status_code for answer in waiting.answers] == [200, 200]
        assert waiting.server.classify({"inputs": "a"}).status_code == 200


def test_a_running_request_whose_deadline_passes_is_504(models: Path) -> None:
    with gated(models) as waiting:
        check_problem(waiting.server.classify({"inputs": "a", "timeout_ms": 1}), 504)
        assert rejected(waiting.server, "deadline") == 1


def test_a_queued_request_whose_deadline_passes_is_504_and_not_computed(models: Path) -> None:
    with gated(models) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        check_problem(waiting.server.classify({"inputs": "a", "timeout_ms": 1}), 504)
        waiting.backend.gate.set()
        running.join()
        assert waiting.backend.rows == 1
        assert metric(waiting.server, 'ladabert_queue_depth{model="alpha"}') == 0


def test_a_caller_who_hangs_up_is_not_computed(models: Path) -> None:
    with gated(models) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        hang_up_while_waiting(waiting.server, lambda: waiting.wait_for_depth(1))
        assert metric(waiting.server, 'ladabert_queue_depth{model="alpha"}') == 0
        assert rejected(waiting.server, "cancelled") == 1
        waiting.backend.gate.set()
        running.join()
        assert waiting.backend.rows == 1
        assert metric(waiting.server, 'ladabert_requests_total{model="alpha",route="/classify",status="499"}') == 1


def test_draining_answers_what_was_admitted_and_refuses_the_rest(models: Path) -> None:
    with gated(models) as waiting:
        admitted = waiting.ask()
        waiting.wait_at_gate()
        waiting.server.app.state.services.registry.drain()
        check_problem(waiting.server.get("/health/ready"), 503)
        response = waiting.server.classify({"inputs": "a"})
        check_problem(response, 503)
        assert response.headers["retry-after"] == "1"
        assert rejected(waiting.server, "draining") == 1
        assert waiting.server.get("/health/live").status_code == 200
        assert metric(waiting.server, 'ladabert_model_ready{model="alpha"}') == 0
        waiting.backend.gate.set()
        admitted.join()
        assert [answer.status_code for answer in waiting.answers] == [200]


def test_what_outlasts_the_grace_period_is_503(models: Path) -> None:
    with gated(models) as waiting:
        admitted = waiting.ask()
        waiting.wait_at_gate()
        waiting.server.app.state.services.registry.abort()
        admitted.join()
        check_problem(waiting.answers[0], 503)


def fail_with(error: BaseException) -> Callable[[FloatArray], FloatArray]:
    def fail(logits: FloatArray) -> FloatArray:
        raise error

    return fail


FAULTS: dict[str, tuple[Callable[[FloatArray], FloatArray], str]] = {
    "raises": (fail_with(RuntimeError("a volcano")), "a volcano"),
    "too few columns": (lambda logits: logits[:, :1], "shape"),
    "too many rows": (lambda logits: np.concatenate([logits, logits]), "shape"),
    "no rows": (lambda logits: logits[:0], "shape"),
    "one axis": (lambda logits: logits.reshape(-1), "shape"),
    "NaN": (lambda logits: np.full_like(logits, np.nan), "finite"),
}


@pytest.mark.parametrize(("spoil", "cause"), FAULTS.values(), ids=FAULTS)
def test_a_failed_run_answers_each_caller_logs_the_cause_with_their_ids_and_the_next_run_works(
    models: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[FloatArray], FloatArray], cause: str
) -> None:
    with gated(models) as waiting:
        waiting.backend.spoil = spoil
        threads = [waiting.ask(request_id="first")]
        waiting.wait_at_gate()
        threads += [waiting.ask(request_id=name) for name in ("second", "third")]
        waiting.wait_for_depth(2)
        waiting.backend.gate.set()
        for thread in threads:
            thread.join()
        for answer in waiting.answers:
            check_problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
        for name in ("first", "second", "third"):
            (line,) = [line for line in caplog.messages if f"request {name} failed" in line]
            assert cause in line
        assert waiting.server.get("/health/ready").status_code == 200
        waiting.backend.spoil = lambda logits: logits
        assert waiting.server.classify({"inputs": "a"}).status_code == 200
        assert metric(waiting.server, "ladabert_requests_in_progress") == 0


def test_a_dead_runner_is_replaced(models: Path) -> None:
    with gated(models) as waiting:
        waiting.backend.gate.set()
        waiting.backend.spoil = fail_with(SystemExit())
        check_problem(waiting.server.classify({"inputs": "a"}), 503)
        waiting.backend.spoil = lambda logits: logits
        assert waiting.server.classify({"inputs": "a"}).status_code == 200
        assert waiting.server.get("/health/ready").status_code == 200


def test_in_progress_counts_requests_that_are_not_answered(models: Path) -> None:
    with gated(models) as waiting:
        thread = waiting.ask()
        waiting.wait_at_gate()
        assert metric(waiting.server, "ladabert_requests_in_progress") == 1
        detail = waiting.server.get("/models/alpha").json()
        assert (detail["queue_depth"], detail["requests_in_progress"]) == (0, 1)
        waiting.backend.gate.set()
        thread.join()
        assert metric(waiting.server, "ladabert_requests_in_progress") == 0


@pytest.mark.parametrize("texts", [1, 7])
def test_every_text_is_computed_once(models: Path, texts: int) -> None:
    with gated(models) as waiting:
        waiting.backend.gate.set()
        waiting.server.classify({"inputs": ["a"] * texts})
        assert waiting.backend.rows == texts
