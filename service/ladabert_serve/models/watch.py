"""What changes in the models folder.

It is looked at every few seconds: that needs no library, works on every file system, network ones included, and costs a
few system calls for each artefact. A notification by the kernel would tell of half-written folders, too.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ladabert_serve.errors import ArtefactError, RequestError, StartError
from ladabert_serve.models.artefact import find_artefacts
from ladabert_serve.models.background import in_thread
from ladabert_serve.models.repository import Repository

logger = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]


class Changes(NamedTuple):
    """Names of artefacts: to load, because they are new or were replaced, and to unload."""

    load: list[str]
    unload: list[str]


class FolderWatch:
    """Remembers the artefacts of a folder; nothing that it sees is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._last = self._look()

    def look(self) -> Changes:
        """Return what has changed since it was returned before, and is the same as at the last look.

        An artefact that is still being copied differs from look to look. One that was returned is not returned again
        until it changes, whatever became of it.
        """
        try:
            now = self._look()
        except ArtefactError:  # the folder itself is away, as while a disk is mounted: that unloads nothing
            return Changes([], [])
        settled = {name: mark for name, mark in now.items() if self._last.get(name) == mark}
        vanished = [name for name in self._known if name not in now and name not in self._last]
        self._last = now
        changed = [name for name, mark in settled.items() if self._known.get(name) != mark]
        self._known = {name: mark for name, mark in self._known.items() if name not in vanished}
        self._known.update({name: settled[name] for name in changed})
        return Changes(sorted(changed), sorted(vanished))

    def _look(self) -> dict[str, Fingerprint]:
        marks = {folder.name: _fingerprint(folder) for folder in find_artefacts(self._folder)}
        return {name: mark for name, mark in marks.items() if mark}


async def follow(watch: FolderWatch, repository: Repository, interval_s: float) -> None:
    """Load and unload what changes in the folder, for ever; what is refused is in the log."""
    while True:
        await asyncio.sleep(interval_s)
        changes = await in_thread(watch.look)
        await _change_each(changes.load, repository.load)
        await _change_each(changes.unload, repository.unload)


async def _change_each(names: Sequence[str], change: Callable[[str], Awaitable[None]]) -> None:
    """Make the changes; after others were made, those that were refused again: cascades need or hold their stages."""
    refused: list[str] = []
    for name in names:
        try:
            await change(name)
        except (StartError, RequestError) as error:
            logger.debug("%s: %s", name, error)
            refused.append(name)
    if len(refused) < len(names):
        for name in refused:
            with contextlib.suppress(StartError, RequestError):
                await change(name)


def _fingerprint(folder: Path) -> Fingerprint:
    """Return name, inode, size and time of change of each file; empty when the folder is going away."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_ino, status.st_size, status.st_mtime_ns) for name, status in found))
