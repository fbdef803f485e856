import itertools

import pytest
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch
from ladabert_compress.graph.candidates import candidate_graphs, choose_graph, rank_candidates
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.predictions import Logits
from ladabert_compress.measure.timing import Timing

FAST, SLOW = GraphPlan("plain"), GraphPlan("fused")


def timings(*milliseconds: float) -> list[Timing]:
    return [Timing(str(index), (1, 8), (ms, ms, ms)) for index, ms in enumerate(milliseconds)]


def test_the_fastest_candidate_is_chosen_and_the_others_are_kept_for_the_manifest() -> None:
    choice = rank_candidates([SLOW, FAST], timings(2.0, 1.0))
    assert choice.plan == FAST
    assert [candidate.median_ms for candidate in choice.candidates] == [{(1, 8): 1.0}, {(1, 8): 2.0}]


def test_noise_does_not_change_the_graph() -> None:
    assert rank_candidates([SLOW, FAST], timings(1.0, 0.99)).plan == SLOW


def test_a_busy_machine_does_not_choose_the_graph(
    tiny_bert: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU time that is made up, three seconds for a run of the first candidate and one of the second, counts alone."""
    graphs = dict(list(candidate_graphs(tiny_bert, "single", None, "cpu").items())[:2])
    first, second = graphs
    runs, compute = itertools.count(), OnnxSession.logits

    def logits(session: OnnxSession, batch: Batch) -> Logits:
        cpu_seconds.append(cpu_seconds[-1] + (1.0 if next(runs) % 2 else 3.0))
        return compute(session, batch)

    cpu_seconds = [0.0]
    monkeypatch.setattr(OnnxSession, "logits", logits)
    monkeypatch.setattr("time.thread_time", lambda: cpu_seconds[-1])
    choice = choose_graph(graphs, 40, shapes=[(1, 8)], repeats=2)
    assert [candidate.plan for candidate in choice.candidates] == [second, first]
    assert [candidate.median_ms[1, 8] for candidate in choice.candidates] == [1000, 3000]
