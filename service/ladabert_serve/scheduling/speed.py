"""How fast something goes, by what was measured lately."""

DECAY = 0.95  # weight of a measurement relative to the next one


class Speed:
    """Seconds per unit of work, as measured; recent measurements count more."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._seconds = 0.0

    def measure(self, amount: int, seconds: float) -> None:
        """Add one measurement."""
        self._amount = self._amount * DECAY + amount
        self._seconds = self._seconds * DECAY + seconds

    @property
    def seconds_per_unit(self) -> float:
        """The weighted mean, 0 before the first measurement."""
        return self._seconds / self._amount if self._amount else 0.0
