"""API keys: their lines in the settings or a file, the key of a request, and its limit on requests."""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ladabert_serve.errors import ForbiddenError, RateLimitedError, StartError, UnauthenticatedError

Scope = Literal["classify", "admin"]

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PREFIX = "ladabert_"  # by which secret scanners know a key that somebody committed
KEY_BYTES = 32  # of randomness in a new key
SHORTEST_KEY, LONGEST_KEY = 32, 256  # characters; a shorter key might be guessed
MOST_REQUESTS_PER_S = 1e6
ROUNDING = 1e-9  # of a request: who comes again when told is let in
BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: its name, its SHA-256 and what it may do. `admin` includes `classify`."""

    name: str
    sha256: bytes
    scopes: frozenset[Scope] = frozenset({"classify"})
    requests_per_s: float | None = None
    burst: int = 1  # requests that may come at once

    def allows(self, scope: Scope) -> bool:
        """Return whether the key may be used for this."""
        return scope in self.scopes or "admin" in self.scopes


def hash_key(key: bytes) -> bytes:
    """Return what is stored of a key: its plain SHA-256.

    A key has 256 random bits, so nobody can try them all. A slow hash with a salt protects passwords, which people
    choose; here it would only let callers keep the server busy.
    """
    return hashlib.sha256(key).digest()


def new_key() -> str:
    """Return a new random key."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def format_line(name: str, key: str, scopes: Iterable[str]) -> str:
    """Return the line that lets a key in; raises StartError."""
    if not (key.isascii() and key.isprintable() and SHORTEST_KEY <= len(key) <= LONGEST_KEY) or " " in key:
        raise StartError(f"a key has {SHORTEST_KEY} to {LONGEST_KEY} ASCII characters without spaces, chosen at random")
    line = f"{name} {hash_key(key.encode()).hex()} scopes={','.join(scopes)}"
    try:
        _parse_line(line)
    except ValueError as error:
        raise StartError(str(error)) from error
    return line


def parse_keys(text: str, source: str) -> list[ApiKey]:
    """Return the keys of `NAME SHA256 [scopes=…] [requests_per_second=…] [burst=…]` lines; raises StartError.

    Lines end with a line break or `;`, and `#` begins a comment.
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(text.replace(";", "\n").split("\n"), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            keys.append(_parse_line(content))
        except ValueError as error:
            raise StartError(f"{source}, line {number}: {error}") from error
    if not keys:
        raise StartError(f"{source}: holds no key (make one with: ladabert-serve keys new --name NAME)")
    return keys


def _parse_line(line: str) -> ApiKey:
    """Return the key of a line; the ValueError's message quotes no part that may be a secret."""
    name, *rest = line.split()
    if NAME.fullmatch(name) is None:
        raise ValueError("a key's name has 1 to 64 letters, digits, dots, hyphens or underscores")
    if not rest or SHA256.fullmatch(rest[0]) is None:
        raise ValueError(f"the name {name!r} is followed by its key's SHA-256 (see ladabert-serve keys hash)")
    options: dict[str, str] = {}
    for option in rest[1:]:
        word, _, value = option.partition("=")
        if word not in ("scopes", "requests_per_second", "burst") or word in options:
            raise ValueError(f"after the SHA-256 of {name!r}: scopes=, requests_per_second= and burst=, each once")
        options[word] = value
    scopes = options.get("scopes", "classify").split(",")
    if not set(scopes) <= set(get_args(Scope)):
        raise ValueError(f"the scopes of {name!r} are {' or '.join(get_args(Scope))}, or both with a comma between")
    if "burst" in options and "requests_per_second" not in options:
        raise ValueError(f"{name!r} has burst= and no requests_per_second=")
    rate = _number(options, "requests_per_second", name)
    burst = _number(options, "burst", name)
    return ApiKey(
        name,
        bytes.fromhex(rest[0]),
        frozenset(scopes),  # type: ignore[arg-type]  # checked above
        rate,
        math.ceil(burst or rate or 1),
    )


def _number(options: Mapping[str, str], word: str, name: str) -> float | None:
    if word not in options:
        return None
    try:
        value = float(options[word])
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_REQUESTS_PER_S:
        raise ValueError(f"{word} of {name!r} is a number above 0, at most {MOST_REQUESTS_PER_S:g}")
    return value


class RequestLimit:
    """A token bucket: it holds `burst` requests and gets `requests_per_s` back each second."""

    def __init__(self, requests_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._requests_per_s = requests_per_s
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._filled_at = clock()

    def wait_s(self) -> float:
        """Take one request and return 0, or return the seconds until there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._requests_per_s)
        self._filled_at = now
        if self._left >= 1 - ROUNDING:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._requests_per_s


class KeyRing:
    """The keys that are let in; `replace` exchanges them all at once, from any thread.

    Each worker process gets an equal part of a key's limit, since the kernel spreads connections over them.
    """

    def __init__(self, keys: Iterable[ApiKey], workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._limits: dict[ApiKey, RequestLimit] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Let in these keys and no others; raises StartError when two share a name or a hash."""
        keys = list(keys)
        seen: set[str | bytes] = set()
        for key in keys:
            if key.name in seen or key.sha256 in seen:
                raise StartError(f"the API key {key.name!r} is there twice; each has a name and a hash of its own")
            seen |= {key.name, key.sha256}
        limits = self._limits
        self._limits = {key: limits.get(key) or self._limit(key) for key in keys if key.requests_per_s is not None}
        self.has_admin = any(key.allows("admin") for key in keys)
        self._by_mark = {self._mark(key.sha256): key for key in keys}

    def _limit(self, key: ApiKey) -> RequestLimit:
        assert key.requests_per_s is not None
        return RequestLimit(key.requests_per_s / self._workers, max(1.0, key.burst / self._workers), self._clock)

    def _mark(self, sha256: bytes) -> bytes:
        """Return what keys are looked up by: nobody outside can know it, so the time of a look-up tells nothing.

        BLAKE2 has a key of its own. An HMAC would give the interpreter's lock away, which costs 50 microseconds.
        """
        return hashlib.blake2s(sha256, key=self._secret).digest()

    def authenticate(self, headers: Mapping[bytes, bytes], scope: Scope) -> ApiKey:
        """Return the key of a request; raises UnauthenticatedError, or ForbiddenError without the scope."""
        offered = (_bearer(headers.get(b"authorization", b"")), headers.get(b"x-api-key", b""))
        key = next((key for key in map(self._find, offered) if key is not None), None)
        if key is None:
            raise UnauthenticatedError
        if not key.allows(scope):
            raise ForbiddenError(scope)
        return key

    def _find(self, offered: bytes) -> ApiKey | None:
        if not SHORTEST_KEY <= len(offered) <= LONGEST_KEY:
            return None
        sha256 = hash_key(offered)
        key = self._by_mark.get(self._mark(sha256))
        return key if key is not None and hmac.compare_digest(key.sha256, sha256) else None

    def spend(self, key: ApiKey) -> None:
        """Count one request of a key; raises RateLimitedError when its limit is reached."""
        limit = self._limits.get(key)
        wait_s = 0.0 if limit is None else limit.wait_s()
        if wait_s and key.requests_per_s is not None:
            raise RateLimitedError(key.requests_per_s, wait_s)


def _bearer(value: bytes) -> bytes:
    """Return the key of an Authorization header, empty where it has another scheme."""
    return value[len(BEARER) :].strip(b" ") if value[: len(BEARER)].lower() == BEARER else b""
