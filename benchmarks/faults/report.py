"""What one fault's script found: promises with what was measured, and the figures behind them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """What every fault's script is told."""

    models: Path
    seconds: float | None = None  # of load, in the scripts that load for some time; None: the script's own
    quick: bool = False
    model: str | None = None  # that callers reach; None: the server's own choice
    first_stage: str | None = None  # of that model, where it is a cascade

    def duration_s(self, promised: float, quick: float) -> float:
        """Return the seconds of load: as asked for, or else by the kind of run."""
        if self.seconds is not None:
            return self.seconds
        return quick if self.quick else promised

    def settings(self, **settings: object) -> dict[str, object]:
        """Return a server's settings, which name the model."""
        return settings if self.model is None else {"default_model": self.model, **settings}


@dataclass(slots=True)
class Report:
    """Every check of one fault: a promise, what was measured, and whether that keeps it."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every promise is kept; a script that checked nothing keeps none."""
        return bool(self.checks) and all(check["holds"] for check in self.checks)

    def check(self, promise: str, measured: object, holds: bool) -> None:
        """Add a check."""
        self.checks.append({"promise": promise, "measured": str(measured), "holds": bool(holds)})
