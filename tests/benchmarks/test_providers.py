"""Claims about the figures of execution providers."""

from benchmarks.harness.results import Results
from benchmarks.providers import AIM_AT, BASELINE, STUDENT, sections


def section(baseline_ms: dict[str, float]) -> str:
    results = Results(
        "providers", {"command": "c", "commit": "c", "date": "d", "machine": "m", "cores": 1, "versions": {}}
    )
    for name in (BASELINE, STUDENT):
        for shape in AIM_AT:
            median_ms = 1.0 if name == STUDENT else baseline_ms.get(shape, 8.0)
            results.add("latency", name=name, workload=shape, median_ms=median_ms)
    return sections(results)["providers"]


def test_an_aim_that_was_missed_is_said_to_be() -> None:
    assert "is **missed at 1×64**: 8.0 at 1×16, 7.9 at 1×64" in section({"1×64": 7.9})
    assert "is **met**" in section({})
