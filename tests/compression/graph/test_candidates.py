from ladabert_compress.graph.candidates import rank_candidates
from ladabert_compress.graph.plan import GraphPlan
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
