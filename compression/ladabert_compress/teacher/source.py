"""Where a teacher is, and what may be read of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class TeacherSource:
    """A model's place.

    Attributes:
        name: a folder or a hub id.
        revision: a branch, tag or commit of a hub id; empty: its main branch.
        allow_pickle: whether weights may come from ``pytorch_model.bin``, of which only tensors are read.
    """

    name: str
    revision: str = ""
    allow_pickle: bool = False

    @classmethod
    def of(cls, source: TeacherSource | Path) -> TeacherSource:
        """A folder as a source."""
        return cls(str(source)) if isinstance(source, Path) else source

    @property
    def is_hub_id(self) -> bool:
        """Whether it is ``owner/name`` and neither a folder of this machine nor a name missing in one."""
        path = Path(self.name)
        return bool(HUB_ID.fullmatch(self.name)) and not path.exists() and not path.parent.exists()
