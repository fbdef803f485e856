from ladabert_compress.measure.timing import Timing


def test_a_ratio_is_taken_within_the_rounds() -> None:
    steady, baseline = Timing("a", (1, 8), (1.0, 10.0, 1.0)), Timing("b", (1, 8), (2.0, 20.0, 2.0))
    assert steady.times_as_fast_as(baseline) == 2.0
