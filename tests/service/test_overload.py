"""Claims about load: the batcher with a model of fixed speed, simulated on a clock of its own."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest

from ladabert_serve.scheduling.fair_queue import BatchLimits
from tests.service.simulation import BYTES_PER_TOKEN, RUN_S, TOKENS_PER_S, Simulation, p99, seconds_of

pytestmark = pytest.mark.slow

CALLERS = 8  # enough to keep every runner busy, too few to fill the queue
FACTOR = 4.0
OVERLOAD_S = 60.0
PREPARED_BYTES_PER_S = 3e6
LONG_TEXT = 65536 // BYTES_PER_TOKEN  # tokens


def limits(queue_s: float) -> BatchLimits:
    """Those of a CPU, but for the queue."""
    return BatchLimits(32, 256, 0.2, 1024, 262144, queue_s, 64)


def sentences(shortest: int = 5, longest: int = 60) -> Iterator[Sequence[int]]:
    source = random.Random(0)
    while True:
        yield [source.randint(shortest, longest)]


def lists(texts: int) -> Iterator[Sequence[int]]:
    sizes = sentences()
    while True:
        yield [next(sizes)[0] for _ in range(texts)]


class Overload:
    """A minute of four times the load that can be served, and the time before and after it."""

    def __init__(self, queue_s: float) -> None:
        simulation = Simulation(limits(queue_s))
        requests = sentences()
        simulation.call(requests, CALLERS, 20)
        self.capacity = simulation.pass_time(20)  # requests/s
        assert not simulation.refused
        earlier = len(simulation.admitted)
        simulation.come(requests, FACTOR * self.capacity, OVERLOAD_S)
        self.served = simulation.pass_time(OVERLOAD_S)
        self.refused = list(simulation.refused)
        self.accepted = simulation.admitted[earlier:]
        self.deepest = simulation.deepest
        simulation.call(requests, CALLERS, 30)
        simulation.pass_time(1)
        refused_so_far = len(simulation.refused)
        self.served_after = simulation.pass_time(20)
        self.refused_after = len(simulation.refused) - refused_so_far
        simulation.run_until(math.inf)
        self.left = simulation.batcher.live_requests, simulation.batcher.queue_depth, simulation.batcher.queued_tokens


@pytest.fixture(scope="module", params=[0.25, 2.5], ids=lambda queue_s: f"queue of {queue_s} s")
def overload(request: pytest.FixtureRequest) -> tuple[float, Overload]:
    return request.param, Overload(request.param)


def test_under_overload_who_is_accepted_waits_at_most_twice_the_queue_time(overload: tuple[float, Overload]) -> None:
    queue_s, found = overload
    assert p99(seconds_of(found.accepted)) <= 2 * queue_s
    assert found.deepest <= 2 * queue_s * found.capacity  # what waits does not grow with what comes


def test_under_overload_all_that_can_be_served_is_and_the_rest_is_refused(overload: tuple[float, Overload]) -> None:
    _, found = overload
    offered = len(found.accepted) + len(found.refused)
    assert offered == round(FACTOR * found.capacity * OVERLOAD_S)
    assert found.served >= 0.95 * found.capacity
    assert all(ticket.error is None for ticket in found.accepted)


@pytest.mark.parametrize("queue_s", [0.25, 2.5, 6.0])
def test_who_is_refused_and_comes_again_when_told_is_served_at_once(queue_s: float) -> None:
    simulation = Simulation(limits(queue_s))
    requests = sentences()
    simulation.call(requests, CALLERS, 20)
    simulation.come(requests, FACTOR * simulation.pass_time(20), 10)
    simulation.pass_time(10)
    refused_at, error = simulation.refused[-1]
    simulation.run_until(refused_at + error.retry_after_s)
    emptied_at = max(math.inf if ticket.started_at is None else ticket.started_at for ticket in simulation.admitted)
    simulation.come(requests, rate=1, seconds=1)
    simulation.pass_time(1)
    assert seconds_of(simulation.admitted[-1:])[0] <= RUN_S + 60 / TOKENS_PER_S
    # Told in whole seconds, at least one; it is not put off for much longer than the queue takes.
    assert error.retry_after_s <= math.ceil(1.3 * (emptied_at - refused_at))


def test_after_the_overload_the_full_speed_is_back_and_nobody_is_refused(overload: tuple[float, Overload]) -> None:
    _, found = overload
    assert found.served_after >= 0.95 * found.capacity
    assert found.refused_after == 0
    assert found.left == (0, 0, 0)


@pytest.mark.parametrize("callers", [1, 8, 32])
def test_single_texts_do_not_wait_for_another_callers_lists(callers: int) -> None:
    def p99_of_singles(clients_with_lists: int) -> float:
        simulation = Simulation(limits(queue_s=60))
        listed = simulation.call(lists(512), clients_with_lists, 60)
        simulation.pass_time(5)
        singles = simulation.call(sentences(), callers, 50)
        simulation.run_until(math.inf)
        assert len(listed) >= 3 * clients_with_lists
        return p99(seconds_of(singles))

    assert p99_of_singles(clients_with_lists=1) <= 3 * p99_of_singles(clients_with_lists=0)


@pytest.mark.parametrize("callers", [1, 8, 32])
def test_single_texts_do_not_wait_for_the_preparation_of_other_callers_long_texts(callers: int) -> None:
    def p99_of_singles(clients_with_lists: int) -> float:
        simulation = Simulation(limits(queue_s=60), model_length=64, prepared_bytes_per_s=PREPARED_BYTES_PER_S)
        listed = simulation.call(itertools.repeat([LONG_TEXT] * 31), clients_with_lists, 60)
        simulation.pass_time(5)
        singles = simulation.call(sentences(), callers, 50)
        simulation.run_until(math.inf)
        assert len(listed) >= 4 * clients_with_lists  # which are answered, too
        return p99(seconds_of(singles))

    assert p99_of_singles(clients_with_lists=4) <= 3 * p99_of_singles(clients_with_lists=0)


@pytest.mark.parametrize("queue_s", [0.25, 2.5])
def test_lists_that_are_slow_to_prepare_are_refused_before_they_wait_much_longer_than_the_queue_time(
    queue_s: float,
) -> None:
    simulation = Simulation(limits(queue_s), model_length=8, prepared_bytes_per_s=PREPARED_BYTES_PER_S)
    texts = 3
    preparation_s = texts * LONG_TEXT * BYTES_PER_TOKEN / PREPARED_BYTES_PER_S
    simulation.come(itertools.repeat([LONG_TEXT] * texts), rate=3 / preparation_s, seconds=60)
    simulation.run_until(math.inf)
    waits = [ticket.queued_at - ticket.admitted_at for ticket in simulation.admitted]
    assert len(waits) + len(simulation.refused) == round(3 / preparation_s * 60)
    assert len(waits) >= 0.9 * 60 / preparation_s  # one runner prepares long texts all the time
    assert p99(sorted(waits)) <= 2 * queue_s + preparation_s


def test_short_texts_do_not_wait_for_as_many_callers_long_ones() -> None:
    def p99_of_short_texts(callers_of_long_ones: int) -> float:
        simulation = Simulation(limits(queue_s=60))
        long = simulation.call(sentences(128, 256), callers_of_long_ones, 60)
        simulation.pass_time(5)
        short = simulation.call(sentences(4, 16), 16, 50)
        simulation.run_until(math.inf)
        assert len(long) >= 50 * callers_of_long_ones  # which are answered about once a second
        return p99(seconds_of(short))

    assert p99_of_short_texts(callers_of_long_ones=16) <= 2 * p99_of_short_texts(callers_of_long_ones=0)
