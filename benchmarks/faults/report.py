"""What one fault's script found: promises with what was measured, and the figures behind them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """What every fault's script is told."""

    models: Path
    seconds: float | None = None  # of load, in the scripts that load for some time; None: the script's own
    quick: bool = False

    def duration_s(self, promised: float, quick: float) -> float:
        """Return the seconds of load: as asked for, or else by the kind of run."""
        if self.seconds is not None:
            return self.seconds
        return quick if self.quick else promised


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, what was measured, and whether that keeps it."""

    promise: str
    measured: str
    holds: bool


@dataclass(slots=True)
class Report:
    """Every check of one fault."""

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every promise is kept; a script that checked nothing keeps none."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def check(self, promise: str, measured: object, holds: bool) -> None:
        """Add a check."""
        self.checks.append(Check(promise, str(measured), bool(holds)))

    def tables(self, about: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the results' tables, each beginning with what they are about."""
        checks = [{**about, **asdict(check)} for check in self.checks]
        return {
            "checks": checks,
            "figures": [{**about, "name": name, "value": round(value, 4)} for name, value in self.figures.items()],
        }
