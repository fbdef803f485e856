"""Claims about requests that wait: refused, late, left, drained; with a backend that runs when told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from ladabert_serve.backends.backend import FloatArray, IntArray
from ladabert_serve.models.tokenizer import TextInput, TextTokenizer
from tests.service.conftest import serving
from tests.service.gated import gated, hang_up_while_waiting, metric, rejected
from tests.service.test_classify import check_problem
from tests.service.tiny_artefact import build_tokenizer, seal, write_artefact


class Panic(BaseException):
    """What a library raises that is no Exception."""


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


def test_one_text_that_always_fails_is_503_and_the_others_of_its_batch_are_answered(models: Path) -> None:
    with gated(models) as waiting:
        inputs = ["a", "bad", "good"]
        poison = waiting.server.app.state.services.registry.get(None).tokenizer.tokenize(TextInput("bad")).ids

        def run(input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
            if poison in input_ids.tolist():
                raise RuntimeError("a volcano")
            return np.zeros((len(input_ids), 2), dtype=np.float32)

        first = waiting.ask()
        waiting.wait_at_gate()
        threads = [waiting.ask(text) for text in inputs * 2]
        waiting.wait_for_depth(6)
        waiting.backend.run = run  # type: ignore[method-assign]
        waiting.backend.gate.set()
        for thread in [first, *threads]:
            thread.join()
        assert sorted(answer.status_code for answer in waiting.answers) == [200] * 5 + [503] * 2
        assert waiting.server.get("/health/ready").status_code == 200


@pytest.mark.parametrize("error", [RuntimeError("a volcano"), Panic("a volcano")])
def test_a_text_that_cannot_be_tokenised_is_503_and_the_next_one_is_answered(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    with gated(models) as waiting:
        waiting.backend.gate.set()
        with monkeypatch.context() as patch:
            patch.setattr(TextTokenizer, "tokenize", fail)
            check_problem(waiting.server.classify({"inputs": ["a", "b"]}), 503)
        assert "a volcano" in caplog.text
        assert waiting.server.classify({"inputs": "a"}).status_code == 200


def test_an_empty_text_is_answered_by_a_model_whose_tokenizer_adds_no_special_tokens(models_folder: Path) -> None:
    folder = write_artefact(models_folder, "plain")
    tokenizer = build_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    seal(folder)
    with serving(models_folder) as server:
        response = server.classify({"inputs": ["", "a"], "timeout_ms": 10000})
        assert response.status_code == 200
        assert [prediction["tokens"] for prediction in response.json()["predictions"]] == [1, 1]


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
