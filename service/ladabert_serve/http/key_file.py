"""The key ring as the settings say, and the thread that reads the file of keys again when it changes."""

import contextlib
import logging
import stat
import threading

from ladabert_serve.errors import StartError
from ladabert_serve.http.api_keys import ApiKey, KeyRing, parse_keys
from ladabert_serve.settings import Settings

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the file
LARGEST_FILE_BYTES = 1 << 20

Version = tuple[int, ...]  # of a file: it differs when the file was written or replaced


class KeyFile:
    """Reads the keys; `start` watches the file, in a thread of its own because a file system may block."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.api_keys_file
        self._fixed = parse_keys(settings.api_keys, "api_keys") if settings.api_keys is not None else []
        self._version = self._look()
        self.ring = KeyRing(self._read(), settings.workers)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="api-keys", daemon=True)

    def start(self) -> None:
        """Begin to watch the file, where there is one."""
        if self._path is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the thread; does not wait for a file system that blocks."""
        self._stopped.set()

    def reload(self) -> None:
        """Read the file again if it changed; a file that is broken leaves the keys as they are."""
        version = self._look()
        if version == self._version:
            return
        self._version = version  # looked at before the read: a write that comes meanwhile is seen the next time
        try:
            keys = self._read()
            self.ring.replace(keys)
        except StartError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("the API keys were read again: %s", ", ".join(key.name for key in keys))

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            self.reload()

    def _look(self) -> Version | None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                found = self._path.stat()
                return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return None

    def _read(self) -> list[ApiKey]:
        path = self._path
        if path is None:
            return self._fixed
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise StartError(f"{path}: is no regular file")
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE_BYTES + 1)
            text = data.decode("utf-8")
        except OSError as error:
            raise StartError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StartError(f"{path}: is not UTF-8") from error
        if len(data) > LARGEST_FILE_BYTES:
            raise StartError(f"{path}: has more than {LARGEST_FILE_BYTES} bytes")
        return [*self._fixed, *parse_keys(text, str(path))]


def read_key_file(settings: Settings) -> KeyFile | None:
    """Return the keys of the settings, None when none are configured; raises StartError."""
    return KeyFile(settings) if settings.asks_for_keys else None
