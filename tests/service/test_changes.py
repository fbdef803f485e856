"""Claims about changes of the repository in several workers: all of them or none, one change after the other."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.server.changes import Answer, Ask, Changes, Command


class Sent(NamedTuple):
    """A message, and whose it is."""

    place: int
    message: Command | Answer


class Bench:
    """Changes of so many workers, and what was sent to them."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = set(range(workers))
        self.sent: list[Sent] = []
        self.changes = Changes(lambda place, message: self.sent.append(Sent(place, message)), lambda: self.workers)

    def take(self) -> list[Sent]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def steps(self) -> list[tuple[int, str]]:
        """Return the steps that workers were told to do since the last time."""
        return [(place, message.step) for place, message in self.take() if isinstance(message, Command)]

    def answers(self) -> list[Sent]:
        return [sent for sent in self.take() if isinstance(sent.message, Answer)]


def test_a_model_is_served_once_every_worker_has_tried_it_and_then_the_asker_is_told() -> None:
    bench = Bench()
    bench.changes.ask(1, Ask(7, "load", "a"))
    assert bench.steps() == [(0, "prepare"), (1, "prepare")]
    bench.changes.done(0, "")
    assert not bench.take()
    bench.changes.done(1, "")
    assert bench.steps() == [(0, "commit"), (1, "commit")]
    bench.changes.done(1, "")
    assert not bench.take()
    bench.changes.done(0, "")
    assert bench.take() == [(1, Answer(7, ""))]


def test_when_one_worker_refuses_none_serves_it_and_the_asker_is_told_why() -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "load", "a"))
    bench.take()
    bench.changes.done(0, "")
    bench.changes.done(1, "no memory")
    assert bench.steps() == [(0, "discard"), (1, "discard")]
    bench.changes.done(0, "")
    bench.changes.done(1, "")
    assert bench.take() == [(0, Answer(1, "in 1 of 2 workers: no memory"))]


def test_when_every_worker_refuses_the_reason_stands_alone() -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "load", "a"))
    for _ in range(2):
        for place in (0, 1):
            bench.changes.done(place, "a wrong hash")
    assert bench.answers() == [(0, Answer(1, "a wrong hash"))]


def test_a_worker_that_ends_is_not_waited_for() -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "load", "a"))
    bench.workers.remove(1)
    bench.changes.lost(1)
    bench.changes.done(0, "")
    assert bench.steps()[-1] == (0, "commit")
    bench.changes.done(0, "")
    assert bench.take() == [(0, Answer(1, ""))]


@pytest.mark.parametrize("ended", [None, 1])
def test_a_worker_that_begins_while_the_others_try_a_model_tries_it_before_any_serves_it(ended: int | None) -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "load", "a"))
    bench.changes.done(1, "")
    if ended is not None:
        bench.changes.lost(ended)  # and another began in its place
    else:
        bench.workers.add(2)
    bench.take()
    bench.changes.done(0, "")
    newcomer = 2 if ended is None else ended
    assert bench.steps() == [(newcomer, "prepare")]
    bench.changes.done(newcomer, "")
    assert sorted(bench.steps()) == [(place, "commit") for place in sorted(bench.workers)]


def test_a_worker_that_begins_later_leaves_out_what_was_unloaded_and_not_loaded_again() -> None:
    bench = Bench(1)
    bench.changes.ask(0, Ask(1, "unload", "a"))
    assert bench.changes.unloaded == {"a"}  # also for one that begins before the others are done
    bench.changes.done(0, "")
    bench.changes.ask(0, Ask(2, "load", "a"))
    bench.changes.done(0, "")
    assert bench.changes.unloaded == set()


def test_a_worker_that_begins_later_loads_what_the_others_refused_to_unload() -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "unload", "a"))
    for place in (0, 1):
        bench.changes.done(place, "is a stage of a cascade")
    assert bench.answers() == [(0, Answer(1, "is a stage of a cascade"))]
    assert bench.changes.unloaded == set()


def test_changes_are_made_one_after_the_other_and_those_of_the_watch_have_nobody_to_tell() -> None:
    bench = Bench(1)
    bench.changes.ask(None, Ask(0, "unload", "a"))
    bench.changes.ask(0, Ask(1, "unload", "b"))
    assert bench.steps() == [(0, "remove")]
    bench.changes.done(0, "")
    assert bench.take() == [(0, Command("remove", "b"))]
    bench.changes.done(0, "")
    assert bench.take() == [(0, Answer(1, ""))]


def test_at_the_end_whoever_waits_is_told() -> None:
    bench = Bench()
    bench.changes.ask(0, Ask(1, "load", "a"))
    bench.changes.ask(1, Ask(1, "load", "b"))
    bench.changes.stop()
    reasons = [message.error for _, message in bench.answers() if isinstance(message, Answer)]
    assert reasons == ["the server is shutting down"] * 2


@given(
    asks=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["load", "unload"])), max_size=6),
    data=st.data(),
)
def test_every_asker_is_answered_once_in_turn_whoever_refuses_or_ends(
    asks: list[tuple[int, str]], data: st.DataObject
) -> None:
    bench = Bench(3)
    for number, (place, action) in enumerate(asks):
        bench.changes.ask(place, Ask(number, "load" if action == "load" else "unload", "a"))
    answered: list[int] = []
    told: list[int] = []
    for _ in range(200):
        for place, message in bench.take():
            if isinstance(message, Answer):
                answered.append(message.number)
            else:
                told.append(place)
        if not told:
            break
        place = told.pop(data.draw(st.integers(0, len(told) - 1)))
        event = data.draw(st.sampled_from(["done", "refused", "ended"])) if len(bench.workers) > 1 else "done"
        if event == "ended":
            bench.workers.discard(place)
            bench.changes.lost(place)
            told = [other for other in told if other != place]
        else:
            bench.changes.done(place, "no" if event == "refused" else "")
    assert answered == [number for number, _ in enumerate(asks)]
