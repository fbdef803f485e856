"""Claims about fairness between API keys: each is a flow, and gets its share whatever the others send."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladabert_serve.errors import QueueFullError
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.flows import Flows
from tests.service.simulation import SimulatedTicket, Simulation, p99, seconds_of
from tests.service.test_batcher import FOREVER, Text, limits, make, take_now

SECONDS = 3.0
RATE = 20.0  # requests a second; a hundred times as many are far too many
BUSY = 24  # callers who keep two runners busy with full batches and one more waiting


def batch_limits(queue_s: float = 1.0) -> BatchLimits:
    """Those of a CPU."""
    return BatchLimits(32, 256, 0.1, 1024, 262144, queue_s, 64)


def requests(texts: int, shortest: int, longest: int) -> Iterator[Sequence[int]]:
    source = random.Random(0)
    while True:
        yield [source.randint(shortest, longest) for _ in range(texts)]


def computed(tickets: Sequence[SimulatedTicket]) -> int:
    """Return the tokens of the texts that were computed by now, of unanswered requests, too."""
    return sum(tokens or 0 for ticket in tickets for tokens in ticket.results)


@settings(max_examples=20)
@given(
    texts=st.sampled_from([1, 1, 8, 64]),
    longest=st.integers(8, 60),
    times=st.sampled_from([1, 10, 100]),
    longest_of_other=st.integers(8, 60),
)
def test_a_key_that_sends_100_times_more_requests_leaves_the_other_its_half(
    texts: int, longest: int, times: int, longest_of_other: int
) -> None:
    simulation = Simulation(batch_limits())
    flood = simulation.come(requests(texts, 4, longest), RATE * times, SECONDS, flow="flood")
    modest = simulation.call(requests(1, 4, longest_of_other), 5 * BUSY, SECONDS, flow="modest")
    simulation.run_until(SECONDS)
    of_flood, of_modest = computed(flood), computed(modest)
    demand = RATE * times * texts * (4 + longest) / 2 * SECONDS  # of the flood
    assert of_modest >= 0.45 * (of_flood + of_modest)
    assert of_flood >= 0.4 * min(demand, of_flood + of_modest)  # its lists do not always wait


@pytest.mark.parametrize("times", [1, 100])
def test_a_single_caller_of_one_key_hardly_waits_for_the_flood_of_another(times: int) -> None:
    def p99_beside(flood: bool) -> float:
        simulation = Simulation(batch_limits())
        if flood:
            simulation.come(requests(1, 5, 60), RATE * times, SECONDS, flow="flood")
        single = simulation.call(requests(1, 5, 60), 1, SECONDS, flow="single")
        simulation.run_until(math.inf)
        assert len(single) > SECONDS
        assert all(ticket.error is None for ticket in single)
        return p99(seconds_of(single))

    # It waits for a batch that runs, and shares one: three times a batch of 256 tokens at most.
    assert p99_beside(flood=True) <= p99_beside(flood=False) + 3 * 0.1


def test_a_key_that_fills_its_queue_does_not_make_another_one_be_refused() -> None:
    batcher, _ = make(limits(requests=4))
    for _ in range(4):
        batcher.admit([Text("a", 1)], 1, 1, FOREVER, flow="flood")
    with pytest.raises(QueueFullError):
        batcher.admit([Text("a", 1)], 1, 1, FOREVER, flow="flood")
    for _ in range(2):
        batcher.admit([Text("b", 1)], 1, 1, FOREVER, flow="modest")
    with pytest.raises(QueueFullError, match="2 requests"):  # its half
        batcher.admit([Text("b", 1)], 1, 1, FOREVER, flow="modest")


def test_keys_share_a_batch() -> None:
    batcher, _ = make(limits(size=8))
    for name in "abcd":
        batcher.admit([Text(name, 5)], 5, 1, FOREVER, flow=name)
    batch = take_now(batcher)
    assert batch is not None
    assert sorted(text.name for text in batch.payloads) == list("abcd")


def test_a_key_that_had_nothing_to_do_saves_nothing_up() -> None:
    simulation = Simulation(batch_limits(queue_s=60))
    steady = simulation.call(requests(1, 5, 60), BUSY, 20, flow="steady")
    rare = simulation.call(requests(1, 5, 60), 1, 20, flow="rare")
    simulation.run_until(10)
    rare += simulation.call(requests(1, 5, 60), 10 * BUSY, 10, flow="rare")
    before = computed(steady)
    simulation.run_until(12)
    assert computed(steady) - before >= 0.4 * 2 * 2 * 2000  # near its half in every two seconds


def test_one_key_alone_is_served_as_all_requests_are_without_keys() -> None:
    def finished(flow: str | None) -> list[float]:
        simulation = Simulation(batch_limits(queue_s=60))
        tickets = simulation.call(requests(1, 5, 60), BUSY, SECONDS, flow=flow)
        tickets += simulation.call(itertools.repeat([20] * 100), 2, SECONDS, flow=flow)
        simulation.run_until(math.inf)
        return seconds_of(tickets)

    assert finished("key") == finished(None)


def test_a_request_that_waited_for_another_model_has_its_place_from_when_it_came() -> None:
    flows: Flows[str] = Flows(batch_limits())
    flow = flows.enter("key")
    came = flows.place("key")
    flow.charge(100)
    assert came.virtual_start(flow) == 0 < flow.virtual_time == 100
    assert flows.place("key").virtual_start(flow) == 100
    flows.leave(flow)
    assert came.virtual_start(flows.enter("key")) == 0  # before all that the new flow holds
