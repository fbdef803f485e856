"""Claims about the cache of answers: what it remembers, for how long, and that nobody can tell but by the time."""

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.models.cache import ENTRY_BYTES, AnswerCache, Known
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput, Tokens
from tests.service.conftest import Server, serving
from tests.service.test_metrics import scrape, value
from tests.service.tiny_artefact import write_artefact

TEXTS = ["a good film", "bad", "not the very warm film", "a"]


def known(labels: int = 2) -> Known:
    return Known([0.5] * labels, 5, False)


class Counting:
    """Loads artefacts as the server does, and counts the texts that run after the start."""

    def __init__(self) -> None:
        self.texts = 0

    def load(self, *arguments: Any) -> Inference:
        inference = load_inference(*arguments)
        run: Callable[[Sequence[Tokens]], Any] = inference.run

        def count(batch: Sequence[Tokens]) -> Any:
            self.texts += len(batch)
            return run(batch)

        inference.run = count  # type: ignore[method-assign]
        return inference


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200), st.integers(0, 10))
def test_the_least_recently_used_go_first_and_the_limit_holds(uses: list[tuple[int, bool]], room: int) -> None:
    size = ENTRY_BYTES + len(known().pack())
    cache = AnswerCache(room * size)
    expected: list[int] = []
    for number, is_put in uses:
        key = bytes([number])
        assert (cache.get(key) is not None) is (number in expected)
        if number in expected:
            expected.remove(number)
            expected.append(number)
        if is_put and number not in expected:
            cache.put(key, known())
            expected = [*expected, number][-room:] if room else []
        assert cache.size_bytes == len(expected) * size


def test_entries_take_the_memory_that_they_count() -> None:
    cache = AnswerCache(1 << 30)
    gc.collect()
    tracemalloc.start()
    for number in range(20_000):
        cache.put(cache.key(number), Known([0.5 + number, 0.25], 300, False))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.7 < taken / cache.size_bytes <= 1.05, taken / 20_000


def test_keys_tell_apart_all_that_makes_other_tokens_and_differ_between_processes() -> None:
    cache, other = AnswerCache(1000), AnswerCache(1000)
    of = [
        (TextInput("a"), "right", None, True),
        (TextInput("a"), "left", None, True),
        (TextInput("a"), "right", 5, True),
        (TextInput("a"), "right", None, False),
        (TextInput("a", "a"), "right", None, True),
        (TextInput("a', 'a"), "right", None, True),
    ]
    assert len({cache.key(*each) for each in of}) == len(of)
    assert cache.key("a") == cache.key("a") != other.key("a")


def ask(server: Server, inputs: Any, **options: Any) -> list[dict[str, Any]]:
    answer = server.classify({"inputs": inputs, **options})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def test_answers_are_the_same_to_the_last_digit_and_computed_once(models: Path) -> None:
    counting = Counting()
    with serving(models, load=counting.load, cache_mib=1) as server:
        ran = counting.texts
        first = [ask(server, text) for text in TEXTS]
        assert counting.texts - ran == len(TEXTS)
        assert [ask(server, text) for text in TEXTS] == first
        assert ask(server, TEXTS) == [each for (each,) in first]
        assert counting.texts - ran == len(TEXTS)
        series = scrape(server)
        for result, count in (("miss", len(TEXTS)), ("hit", 2 * len(TEXTS))):
            assert value(series, "ladabert_cache_total", model="alpha", result=result) == count
        assert value(series, "ladabert_prediction_score_count", model="alpha") == 3 * len(TEXTS)
        assert value(series, "ladabert_inference_duration_seconds_count", model="alpha") == len(TEXTS)


def test_of_a_list_only_what_is_new_is_computed(models: Path) -> None:
    counting = Counting()
    with serving(models) as plain:
        expected = ask(plain, TEXTS)
    with serving(models, load=counting.load, cache_mib=1) as server:
        ask(server, TEXTS[1])
        ran = counting.texts
        answers = ask(server, TEXTS)
        assert counting.texts - ran == len(TEXTS) - 1
    assert [each["label"] for each in answers] == [each["label"] for each in expected]
    assert [each["score"] for each in answers] == pytest.approx([each["score"] for each in expected], abs=1e-6)


def test_one_entry_answers_every_function_and_top_k(models: Path) -> None:
    counting = Counting()
    with serving(models) as plain, serving(models, load=counting.load, cache_mib=1) as server:
        ask(server, "a good film", model="topics")
        ran = counting.texts
        for options in ({"function_to_apply": "none"}, {"function_to_apply": "softmax"}, {"top_k": 1}):
            asked = {"inputs": "a good film", "model": "topics", **options}
            assert server.classify(asked).json()["predictions"] == plain.classify(asked).json()["predictions"]
        assert counting.texts == ran


def test_a_text_that_was_cut_is_still_refused_where_it_may_not_be(models: Path) -> None:
    with serving(models, cache_mib=1) as server:
        ask(server, "a " * 40)
        answer = server.classify({"inputs": ["a", "a " * 40], "truncate": False})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == "inputs[1]"


def test_another_version_answers_for_itself(models_folder: Path, tmp_path: Path) -> None:
    write_artefact(models_folder, seed=1)
    with serving(models_folder, cache_mib=1) as server:
        before = ask(server, TEXTS)
        write_artefact(tmp_path / "new", seed=2).rename(tmp_path / "tiny")
        (models_folder / "tiny").rename(tmp_path / "old")
        (tmp_path / "tiny").rename(models_folder / "tiny")
        registry = server.app.state.services.registry

        async def load() -> None:
            await registry.load("tiny")

        server.call(load)
        after = ask(server, TEXTS)
        assert [each["score"] for each in before] != [each["score"] for each in after]
    with serving(models_folder) as plain:
        assert [each["score"] for each in after] == pytest.approx([each["score"] for each in ask(plain, TEXTS)])


def test_a_draining_server_answers_nothing_from_the_cache(models: Path) -> None:
    with serving(models, cache_mib=1) as server:
        ask(server, "a")

        async def drain() -> None:
            server.app.state.services.registry.drain()

        server.call(drain)
        assert server.classify({"inputs": "a"}).status_code == 503


def test_a_cache_of_one_model_is_its_own(models: Path, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[topics]\ncache_mib = 1\n")
    with serving(models, model_settings=tmp_path / "models.toml") as server:
        cached = {dict(labels)["model"] for name, labels in scrape(server) if name == "ladabert_cache_total"}
        assert cached == {"topics"}
