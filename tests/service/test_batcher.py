"""Claims about the batcher, with a clock that stands still and no threads but where said."""

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from ladabert_serve.errors import (
    CallerLeftError,
    DeadlineExceededError,
    DrainingError,
    ModelFailedError,
    QueueFullError,
)
from ladabert_serve.scheduling.batcher import PIECE_BYTES, Batcher
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.flows import YIELD_S, Waiting
from ladabert_serve.scheduling.ticket import Batch, Ticket

FOREVER = float("inf")


class Text(NamedTuple):
    """A text that takes `size_bytes` to prepare and has `length` tokens."""

    name: str
    length: int
    size_bytes: int = 1


TextBatcher = Batcher[list[Text], Text, str]
TextTicket = Ticket[list[Text], Text, str]
TextBatch = Batch[list[Text], Text, str]
TextPreparation = Generator[int, None, list[tuple[Text, int]]]


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Record:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.depth = 0
        self.batches: list[tuple[int, int, int]] = []

    def queue_depth_changed(self, depth: int) -> None:
        self.depth = depth

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        self.batches.append((size, tokens, padded_tokens))


def limits(
    size: int = 8,
    tokens: int = 1000,
    padding: float = 0.2,
    requests: int = 1000,
    queue_tokens: int = 100000,
    queue_s: float = 1e9,
    window: int = 1000,
) -> BatchLimits:
    return BatchLimits(size, tokens, padding, requests, queue_tokens, queue_s, window)


def prepare(texts: list[Text]) -> TextPreparation:
    for text in texts[:-1]:
        yield text.size_bytes
    return [(text, text.length) for text in texts]


def deliver(tickets: Sequence[TextTicket]) -> None:
    for ticket in tickets:
        ticket.waiter()


def make(
    batch_limits: BatchLimits | None = None,
    clock: Callable[[], float] | None = None,
    prepare: Callable[[list[Text]], TextPreparation] = prepare,
) -> tuple[TextBatcher, Record]:
    record = Record()
    return Batcher(batch_limits or limits(), prepare, deliver, record, clock or Clock()), record


class Caller:
    """A caller who asks at once and counts how often it was answered."""

    def __init__(
        self,
        batcher: TextBatcher,
        lengths: Sequence[int],
        deadline: float = FOREVER,
        bytes_per_token: int = 1,
        flow: str | None = None,
    ) -> None:
        self.texts = [
            Text(f"{id(self)}/{index}", length, length * bytes_per_token) for index, length in enumerate(lengths)
        ]
        self.answers = 0
        size_bytes = sum(text.size_bytes for text in self.texts)
        self.ticket: TextTicket = batcher.admit(self.texts, sum(lengths), size_bytes, deadline, self._answered, flow)

    def _answered(self) -> None:
        self.answers += 1


def compute(batch: TextBatch) -> list[str]:
    return [text.name for text in batch.payloads]


def fail(batch: TextBatch) -> None:
    batch.answer([ModelFailedError("tiny", "a fault")] * len(batch.payloads), timed=False)


def take_now(batcher: TextBatcher) -> TextBatch | None:
    return batcher.take(timeout_s=0)


def run_all(batcher: TextBatcher) -> list[TextBatch]:
    batches = []
    while batch := take_now(batcher):
        batches.append(batch)
        batch.answer(compute(batch))
    return batches


def test_texts_of_near_equal_length_share_a_batch() -> None:
    batcher, _ = make(limits(padding=0.1))
    for length in (10, 50, 11, 49, 10):
        Caller(batcher, [length])
    assert [sorted(length for _, length, _ in batch.payloads) for batch in run_all(batcher)] == [
        [10, 10, 11],
        [49, 50],
    ]


def test_a_short_text_does_not_wait_behind_long_ones() -> None:
    batcher, _ = make(limits(size=1))
    for _ in range(5):
        Caller(batcher, [100])
    short = Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    assert batch.payloads == short.texts


def test_texts_that_hardly_differ_in_length_go_in_the_order_in_which_they_came() -> None:
    batcher, _ = make(limits(size=1, window=64))
    callers = [Caller(batcher, [length]) for length in (31, 20, 10, 30, 5)]
    assert [batch.payloads for batch in run_all(batcher)] == [caller.texts for caller in callers]


def test_while_a_long_text_is_run_a_short_one_goes_before_the_next_long_one() -> None:
    batcher, _ = make(limits(size=1, window=64))
    for _ in range(3):
        Caller(batcher, [65])
    running = take_now(batcher)
    assert running is not None
    late = Caller(batcher, [64])  # by the fair order the last
    batch = take_now(batcher)
    assert batch is not None
    assert batch.payloads == late.texts
    batch.answer(compute(batch))
    later = Caller(batcher, [64])
    running.answer(compute(running))
    batch = take_now(batcher)  # no long one is run any more: the fair order holds
    assert batch is not None
    assert batch.payloads != later.texts


def test_a_single_text_does_not_wait_behind_another_callers_list() -> None:
    batcher, _ = make(limits(size=4, window=40))
    Caller(batcher, [10] * 500)
    assert take_now(batcher) is not None
    single = Caller(batcher, [10])
    taken = [batch for batch in (take_now(batcher), take_now(batcher)) if batch is not None]
    assert any(single.texts[0] in batch.payloads for batch in taken)


@given(window=st.integers(1, 200), size=st.integers(1, 8), newcomers=st.integers(1, 6))
def test_nothing_waits_for_ever_however_many_come_after_it(window: int, size: int, newcomers: int) -> None:
    batcher, _ = make(limits(size=size, window=window))
    patient = [Caller(batcher, [100]), Caller(batcher, [10] * 20)]
    rounds = 0
    while not all(caller.ticket.settled for caller in patient):
        for _ in range(newcomers):
            Caller(batcher, [10])
        for _ in range(newcomers + 1):  # the runners keep up with the newcomers, and no more
            batch = take_now(batcher)
            if batch is not None:
                batch.answer(compute(batch))
        rounds += 1
        assert rounds < 1000


def test_while_short_requests_come_a_list_runs_in_small_batches_and_apart_from_them() -> None:
    batcher, _ = make(limits(size=8, window=20))
    listing = Caller(batcher, [10] * 500)
    single = Caller(batcher, [10])
    batches = [batch for batch in (take_now(batcher), take_now(batcher), take_now(batcher)) if batch is not None]
    assert sorted(len(batch.payloads) for batch in batches) == [1, 2, 2]
    assert [batch.payloads for batch in batches if single.texts[0] in batch.payloads] == [single.texts]
    assert not listing.ticket.settled


def test_a_list_fills_its_batches_again_a_while_after_the_last_short_request() -> None:
    clock = Clock()
    batcher, _ = make(limits(size=8, window=20), clock=clock)
    Caller(batcher, [10] * 500)
    Caller(batcher, [10])
    sizes = []
    for now in (0.0, 0.0, YIELD_S / 2, YIELD_S, YIELD_S):
        clock.now = now
        batch = take_now(batcher)
        assert batch is not None
        batch.answer(compute(batch))
        sizes.append(len(batch.payloads))
    assert sorted(sizes[:3]) == [1, 2, 2]
    assert sizes[3:] == [8, 8]


@given(
    short=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    long=st.lists(st.lists(st.integers(1, 60), min_size=2, max_size=20), max_size=4),
    window=st.integers(1, 60),
)
def test_while_short_requests_come_no_run_with_texts_of_a_list_is_longer_than_the_window(
    short: list[int], long: list[list[int]], window: int
) -> None:
    batcher, _ = make(limits(size=8, tokens=200, window=window))
    lists = [Caller(batcher, lengths) for lengths in long if sum(lengths) > window]
    singles = [Caller(batcher, [length]) for length in short]
    of_lists = {text for caller in lists for text in caller.texts}
    for batch in run_all(batcher):
        if len(batch.payloads) > 1 and of_lists.intersection(batch.payloads):
            assert batch.padded_tokens <= window
    assert all(caller.answers == 1 for caller in (*lists, *singles))


def test_a_list_that_is_alone_fills_its_batches_whatever_the_window() -> None:
    batcher, _ = make(limits(size=8, window=1))
    Caller(batcher, [10] * 32)
    assert [len(batch.payloads) for batch in run_all(batcher)] == [8, 8, 8, 8]


def test_a_text_longer_than_the_budget_runs_alone() -> None:
    batcher, _ = make(limits(tokens=64))
    Caller(batcher, [100])
    Caller(batcher, [100])
    assert [len(batch.payloads) for batch in run_all(batcher)] == [1, 1]


def test_runners_that_are_free_together_share_what_waits() -> None:
    batcher, _ = make(limits(size=32))
    sizes: list[int] = []
    both_waiting = threading.Barrier(2, action=lambda: None)

    def run() -> None:
        both_waiting.wait()
        batch = batcher.take(timeout_s=10)
        assert batch is not None
        sizes.append(len(batch.payloads))
        batch.answer(compute(batch))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    while batcher.free_runners < 2:  # both stand in `take`
        threading.Event().wait(0.001)
    Caller(batcher, [10] * 8)
    for thread in threads:
        thread.join()
    assert sizes == [4, 4]


def test_results_come_back_in_the_order_of_the_texts() -> None:
    batcher, _ = make(limits(size=3))
    caller = Caller(batcher, [30, 3, 28, 4, 29, 5])
    run_all(batcher)
    assert caller.ticket.results == [name for name, *_ in caller.texts]


def test_a_cancelled_request_is_not_computed() -> None:
    batcher, record = make()
    leaver, stayer = Caller(batcher, [10, 10]), Caller(batcher, [10])
    batcher.cancel(leaver.ticket)
    batches = run_all(batcher)
    assert [batch.payloads for batch in batches] == [stayer.texts]
    assert isinstance(leaver.ticket.error, CallerLeftError)
    assert (leaver.answers, stayer.answers) == (1, 1)
    assert record.depth == 0


def test_a_request_cancelled_before_it_is_prepared_is_not_prepared() -> None:
    prepared: list[list[Text]] = []

    def remember(texts: list[Text]) -> TextPreparation:
        prepared.append(texts)
        return (yield from prepare(texts))

    batcher, record = make(prepare=remember)
    leaver, stayer = Caller(batcher, [10]), Caller(batcher, [10])
    batcher.cancel(leaver.ticket)
    run_all(batcher)
    assert prepared == [stayer.texts]
    assert (batcher.queue_depth, batcher.queued_tokens, record.depth) == (0, 0, 0)


def test_nothing_is_kept_of_a_request_that_leaves_while_no_runner_is_free() -> None:
    batcher, _ = make()
    leavers = [Caller(batcher, [10] * 500) for _ in range(3)]
    take_now(batcher)
    for leaver in leavers:
        batcher.cancel(leaver.ticket)
    assert not batcher._arrived
    assert not batcher._unfinished


def test_a_text_that_cannot_be_prepared_fails_its_request_and_no_other() -> None:
    def refuse_long(texts: list[Text]) -> TextPreparation:
        for text in texts:
            if text.length > 100:
                raise ModelFailedError("tiny", "a fault")
        return (yield from prepare(texts))

    batcher, record = make(prepare=refuse_long)
    bad, good = Caller(batcher, [10, 101]), Caller(batcher, [10])
    run_all(batcher)
    assert isinstance(bad.ticket.error, ModelFailedError)
    assert good.ticket.results == [good.texts[0][0]]
    assert (bad.answers, good.answers, record.depth) == (1, 1, 0)


def test_a_long_list_is_prepared_in_parts_and_others_are_served_in_between() -> None:
    prepared = 0

    def count(texts: list[Text]) -> TextPreparation:
        nonlocal prepared
        for text in texts:
            prepared += 1
            yield text.size_bytes
        return [(text, text.length) for text in texts]

    batcher, _ = make(prepare=count)
    Caller(batcher, [10] * 500)
    single = Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    assert batch.payloads == single.texts
    assert prepared < 50


def test_a_short_text_is_prepared_before_long_ones_that_came_earlier_and_while_they_are_prepared() -> None:
    prepared: list[int] = []
    shorts: list[Caller] = []

    def remember(texts: list[Text]) -> TextPreparation:
        for text in texts:
            prepared.append(text.size_bytes)
            if prepared == [10, PIECE_BYTES]:
                shorts.append(Caller(batcher, [20]))
            yield text.size_bytes
        return [(text, text.length) for text in texts]

    batcher, _ = make(limits(size=1), prepare=remember)
    long = Caller(batcher, [8] * 30, bytes_per_token=PIECE_BYTES // 8)
    shorts.append(Caller(batcher, [10]))
    for short in (0, 1):
        batch = take_now(batcher)
        assert batch is not None
        assert batch.payloads == shorts[short].texts
        batch.answer(compute(batch))
    assert prepared == [10, PIECE_BYTES, 20]
    run_all(batcher)
    assert long.answers == 1
    assert len(prepared) == 32


def test_while_one_runner_prepares_a_long_request_another_takes_only_short_ones() -> None:
    taken: list[TextBatch | None] = []

    def take_meanwhile(texts: list[Text]) -> TextPreparation:
        for text in texts:
            if text.size_bytes > PIECE_BYTES and not taken:
                taken.append(take_now(batcher))
                short = Caller(batcher, [10])
                taken.append(take_now(batcher))
                assert taken[1] is not None
                assert taken[1].payloads == short.texts
            yield text.size_bytes
        return [(text, text.length) for text in texts]

    batcher, _ = make(prepare=take_meanwhile)
    long = [Caller(batcher, [10, 10], bytes_per_token=PIECE_BYTES) for _ in range(2)]
    run_all(batcher)
    assert taken[0] is None
    assert [caller.answers for caller in long] == [1, 1]


def test_many_requests_are_prepared_in_pieces_of_limited_size() -> None:
    sizes: list[int] = []

    def remember(texts: list[Text]) -> TextPreparation:
        sizes.append(texts[0].size_bytes)
        return (yield from prepare(texts))

    batcher, _ = make(prepare=remember)
    for _ in range(12):
        Caller(batcher, [10], bytes_per_token=PIECE_BYTES // 30)
    with batcher._lock:
        batcher.free_runners = 1
        batcher._prepare_and_queue(batcher._next_arrived())
    assert PIECE_BYTES <= sum(sizes) < 2 * PIECE_BYTES


def slow_preparation(clock: Clock, seconds_per_byte: float) -> Callable[[list[Text]], TextPreparation]:
    def prepare_slowly(texts: list[Text]) -> TextPreparation:
        for index, text in enumerate(texts):
            if index:
                yield texts[index - 1].size_bytes
            clock.now += seconds_per_byte * text.size_bytes
        return [(text, text.length) for text in texts]

    return prepare_slowly


def test_preparation_counts_in_the_expected_wait_a_piece_for_short_requests_and_all_of_it_for_long_ones() -> None:
    clock = Clock()
    batcher, _ = make(limits(size=1, queue_s=2), clock, slow_preparation(clock, 1 / PIECE_BYTES))
    Caller(batcher, [8], bytes_per_token=PIECE_BYTES // 8)
    batch = take_now(batcher)  # a second a piece
    assert batch is not None
    batch.answer(compute(batch))  # in no time
    assert batcher.expected_wait_s == 0
    Caller(batcher, [8] * 4, bytes_per_token=PIECE_BYTES // 8)
    assert batcher.expected_wait_s == pytest.approx(1)
    with pytest.raises(QueueFullError) as refused:
        Caller(batcher, [8] * 4, bytes_per_token=PIECE_BYTES // 8)
    assert refused.value.retry_after_s == 4
    short = Caller(batcher, [8])
    run_all(batcher)
    assert short.answers == 1
    assert batcher.expected_wait_s == 0


def test_a_text_that_took_long_to_prepare_goes_after_one_that_did_not() -> None:
    clock = Clock()
    batcher, _ = make(limits(size=1), clock, slow_preparation(clock, 0.001))
    Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    clock.now += 1
    batch.answer(compute(batch))  # ten tokens a second
    slow, fast = Caller(batcher, [10], bytes_per_token=800), Caller(batcher, [10])
    assert [batch.payloads for batch in run_all(batcher)] == [fast.texts, slow.texts]


class Panic(BaseException):
    """What a library raises that is no Exception."""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_panic_in_preparation_settles_its_request_and_no_other(when: str) -> None:
    def panic(texts: list[Text]) -> TextPreparation:
        if when == "at once" and len(texts) > 1:
            raise Panic
        return panic_later(texts)

    def panic_later(texts: list[Text]) -> TextPreparation:
        yield from prepare(texts[:1])
        if len(texts) > 1:
            raise Panic
        return [(text, text.length) for text in texts]

    batcher, record = make(prepare=panic)
    bad, good = Caller(batcher, [10, 10]), Caller(batcher, [10])
    run_all(batcher)
    assert isinstance(bad.ticket.error, Panic)
    assert (bad.answers, good.answers, record.depth, batcher.queued_tokens) == (1, 1, 0, 0)
    assert good.ticket.error is None


def test_a_request_without_texts_is_settled() -> None:
    batcher, record = make()
    empty, good = Caller(batcher, []), Caller(batcher, [10])
    run_all(batcher)
    assert isinstance(empty.ticket.error, RuntimeError)
    assert (empty.answers, good.answers, record.depth, batcher.queued_tokens) == (1, 1, 0, 0)


def test_a_request_cancelled_while_it_runs_is_answered_once() -> None:
    batcher, _ = make()
    caller = Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    batcher.cancel(caller.ticket)
    batch.answer(compute(batch))
    assert caller.answers == 1
    assert isinstance(caller.ticket.error, CallerLeftError)


def test_a_text_whose_deadline_passed_is_not_computed() -> None:
    clock = Clock()
    batcher, _ = make(clock=clock)
    late, patient = Caller(batcher, [10], deadline=1), Caller(batcher, [10], deadline=9)
    clock.now = 5
    batches = run_all(batcher)
    assert [batch.payloads for batch in batches] == [patient.texts]
    assert isinstance(late.ticket.error, DeadlineExceededError)
    assert late.answers == 1


def test_more_requests_than_the_limit_are_refused() -> None:
    batcher, _ = make(limits(requests=2))
    Caller(batcher, [1])
    Caller(batcher, [1])
    with pytest.raises(QueueFullError):
        Caller(batcher, [1])


def test_more_tokens_than_the_limit_are_refused() -> None:
    batcher, _ = make(limits(queue_tokens=100))
    Caller(batcher, [60])
    with pytest.raises(QueueFullError):
        Caller(batcher, [60])
    Caller(batcher, [40])


def test_a_request_over_the_token_limit_is_admitted_when_nothing_waits() -> None:
    batcher, _ = make(limits(queue_tokens=100))
    Caller(batcher, [500])
    assert len(run_all(batcher)) == 1


def test_exact_token_counts_replace_the_estimate() -> None:
    batcher, _ = make(limits(size=1, queue_tokens=1000))
    for _ in range(2):
        batcher.admit([Text("short", 10)], 90, 10, FOREVER, lambda: None)
    assert batcher.queued_tokens == 180
    assert take_now(batcher) is not None
    assert batcher.queued_tokens == 10


def test_a_wait_that_would_be_too_long_is_refused_and_says_when_to_come_again() -> None:
    clock = Clock()
    batcher, _ = make(limits(size=1, queue_s=2), clock=clock)
    Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    clock.now += 1  # ten tokens a second
    batch.answer(compute(batch))
    admitted = [Caller(batcher, [10]) for _ in range(3)]
    with pytest.raises(QueueFullError) as refused:
        Caller(batcher, [10])
    assert refused.value.retry_after_s == 3
    run_all(batcher)
    assert [caller.answers for caller in admitted] == [1, 1, 1]
    Caller(batcher, [10])


def test_of_another_callers_long_list_only_a_batch_counts_as_wait() -> None:
    clock = Clock()
    batcher, _ = make(limits(size=1, tokens=10, queue_s=2, window=10), clock=clock)
    Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    clock.now += 1
    batch.answer(compute(batch))
    Caller(batcher, [10] * 100)
    Caller(batcher, [10])
    assert batcher.expected_wait_s == 2


def test_a_failed_batch_answers_each_of_its_callers() -> None:
    batcher, _ = make()
    callers = [Caller(batcher, [10]) for _ in range(3)]
    batch = take_now(batcher)
    assert batch is not None
    fail(batch)
    assert [caller.answers for caller in callers] == [1, 1, 1]
    assert all(isinstance(caller.ticket.error, ModelFailedError) for caller in callers)


def test_one_failed_text_fails_its_request_and_no_other() -> None:
    batcher, _ = make()
    bad, good = Caller(batcher, [10]), Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    batch.answer([ModelFailedError("tiny", "a fault"), "fine"])
    assert isinstance(bad.ticket.error, ModelFailedError)
    assert good.ticket.results == ["fine"]


def test_the_rest_of_a_failed_request_is_not_computed() -> None:
    batcher, record = make(limits(size=1))
    caller = Caller(batcher, [10, 10, 10])
    batch = take_now(batcher)
    assert batch is not None
    fail(batch)
    assert take_now(batcher) is None
    assert (caller.answers, record.depth, batcher.queued_tokens) == (1, 0, 0)


def test_draining_refuses_new_requests_and_answers_admitted_ones() -> None:
    batcher, _ = make()
    admitted = Caller(batcher, [10])
    batcher.drain()
    with pytest.raises(DrainingError):
        Caller(batcher, [10])
    run_all(batcher)
    assert admitted.ticket.error is None
    assert admitted.answers == 1


def test_closing_answers_what_is_left_and_frees_a_waiting_runner() -> None:
    batcher, _ = make()
    taken: list[object] = []
    runner = threading.Thread(target=lambda: taken.append(batcher.take()))
    runner.start()
    caller = Caller(batcher, [10])
    batcher.close()
    runner.join(timeout=10)
    assert taken == [None]
    assert isinstance(caller.ticket.error, DrainingError)


def test_a_batch_is_answered_only_once() -> None:
    batcher, _ = make()
    Caller(batcher, [10])
    batch = take_now(batcher)
    assert batch is not None
    batch.answer(compute(batch))
    with pytest.raises(RuntimeError):
        batch.answer(compute(batch))


@given(
    requests=st.lists(st.lists(st.integers(1, 128), min_size=1, max_size=6), max_size=20),
    size=st.integers(1, 12),
    tokens=st.integers(1, 400),
    padding=st.floats(0, 0.9),
)
def test_no_batch_is_over_its_limits(requests: list[list[int]], size: int, tokens: int, padding: float) -> None:
    batcher, record = make(limits(size=size, tokens=tokens, padding=padding))
    callers = [Caller(batcher, lengths) for lengths in requests]
    for batch in run_all(batcher):
        count = len(batch.payloads)
        assert count <= size
        assert batch.padded_tokens == count * max(length for _, length, _ in batch.payloads)
        if count > 1:
            assert batch.padded_tokens <= tokens
            assert batch.padded_tokens - batch.tokens <= padding * batch.padded_tokens
    for caller in callers:
        assert caller.answers == 1
        assert caller.ticket.results == [name for name, *_ in caller.texts]
    assert (batcher.queue_depth, batcher.queued_tokens, batcher.live_requests, record.depth) == (0, 0, 0, 0)


LENGTHS = st.lists(st.integers(1, 6) | st.integers(1, 40), min_size=1, max_size=40)


class BatcherMachine(RuleBasedStateMachine):
    """Callers come, leave and run late, and runners prepare, take and answer, in any order."""

    admitted = Bundle("admitted")
    running = Bundle("running")
    limits = limits(size=3, tokens=64, padding=0.25, requests=6, queue_tokens=200, window=30)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.batcher, self.record = make(self.limits, self.clock, self.prepare)
        self.callers: list[Caller] = []
        self.taken: set[str] = set()

    def prepare(self, texts: list[Text]) -> TextPreparation:
        for size_bytes in prepare(texts):
            self.clock.now += 1e-4 * size_bytes
            yield size_bytes
        return [(text, text.length) for text in texts]

    @rule(
        target=admitted,
        lengths=LENGTHS,
        bytes_per_token=st.sampled_from([1, 50, 1000]),
        patience=st.integers(1, 9),
        flow=st.sampled_from([None, None, "a", "b"]),
    )
    def arrive(self, lengths: list[int], bytes_per_token: int, patience: int, flow: str | None) -> Caller | None:
        deadline = self.clock.now + patience
        try:
            caller = Caller(self.batcher, lengths, deadline, bytes_per_token, flow)
        except QueueFullError:
            assert self.batcher.queue_depth > 0
            return None
        self.callers.append(caller)
        return caller

    @rule(caller=admitted)
    def leave(self, caller: Caller | None) -> None:
        if caller:
            self.batcher.cancel(caller.ticket)

    @rule(caller=admitted)
    def run_late(self, caller: Caller | None) -> None:
        if caller:
            self.batcher.expire(caller.ticket)

    @rule()
    def time_passes(self) -> None:
        self.clock.now += 1

    @precondition(lambda self: self.batcher.queue_depth)
    @rule(target=running)
    def take(self) -> TextBatch | None:
        gone = {name for caller in self.callers if caller.ticket.settled for name, *_ in caller.texts}
        late = {
            name for caller in self.callers if caller.ticket.deadline <= self.clock.now for name, *_ in caller.texts
        }
        batch = take_now(self.batcher)
        if batch is None:
            return None
        names = set(compute(batch))
        assert not names & gone, "computed for a caller who left"
        assert not names & late, "begun after its deadline"
        assert not names & self.taken, "computed twice"
        self.taken |= names
        self.check_limits(batch)
        return batch

    def check_limits(self, batch: TextBatch) -> None:
        lengths = [length for _, length, _ in batch.payloads]
        padded = max(lengths) * len(lengths)
        assert (batch.tokens, batch.padded_tokens) == (sum(lengths), padded)
        assert self.record.batches[-1] == (len(lengths), sum(lengths), padded)
        assert len(lengths) <= self.limits.max_batch_size
        if len(lengths) > 1:
            assert padded <= self.limits.max_batch_tokens
            assert padded - sum(lengths) <= self.limits.max_batch_padding * padded

    @rule(batch=consumes(running))
    def answer(self, batch: TextBatch | None) -> None:
        if batch:
            batch.answer(compute(batch))

    @rule(batch=consumes(running))
    def fail(self, batch: TextBatch | None) -> None:
        if batch:
            fail(batch)

    @invariant()
    def everybody_is_answered_at_most_once(self) -> None:
        assert all(caller.answers == int(caller.ticket.settled) for caller in self.callers)

    @invariant()
    def answers_have_the_order_of_the_texts(self) -> None:
        for caller in self.callers:
            if caller.ticket.settled and caller.ticket.error is None:
                assert caller.ticket.results == [name for name, *_ in caller.texts]

    @invariant()
    def the_gauge_tells_the_truth(self) -> None:
        waiting = [caller for caller in self.callers if not caller.ticket.settled and caller.ticket._unstarted]
        assert self.record.depth == self.batcher.queue_depth == len(waiting)
        assert self.batcher.queued_tokens == sum(caller.ticket._waiting_tokens for caller in waiting)
        assert self.batcher._waiting.contended_tokens == sum(caller.ticket._contended_tokens for caller in waiting)
        assert self.batcher._waiting.size_bytes == sum(caller.ticket._waiting_bytes for caller in waiting) >= 0
        assert self.batcher._waiting.contended_bytes == sum(caller.ticket._contended_bytes for caller in waiting)
        assert not self.batcher._long_in_preparation
        flows = list(self.batcher._flows._flows.values())
        for name in {field.name for field in fields(Waiting)}:
            assert getattr(self.batcher._waiting, name) == sum(getattr(flow.waiting, name) for flow in flows)
        assert sum(flow.live_requests for flow in flows) == self.batcher.live_requests
        for flow in flows:
            ready = [item for same_length in flow.by_length.values() for item in same_length]
            assert flow.ready_texts == len(ready)
            assert all(item.waiting for item in ready)

    def teardown(self) -> None:
        run_all(self.batcher)
        self.batcher.close()
        assert all(caller.answers == 1 for caller in self.callers)
        assert (self.batcher.queue_depth, self.batcher.queued_tokens, self.batcher.live_requests) == (0, 0, 0)


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
