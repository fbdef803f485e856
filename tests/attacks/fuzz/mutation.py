"""Changes a request a little, or a lot; the same seed makes the same changes."""

from random import Random

MOST_CHANGES = 2
TOKENS = [
    *[
        b"",
        b"\x00",
        b"\xff",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b",",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\\ud800",
    ],
    *[
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e999",
        b"NaN",
        b"9" * 40,
        b"[" * 2000,
        b"{}",
        b"\\u0000",
        b"\xc0\x80",
        b"\xf0\x9f",
    ],
    *[b"inputs", b"text", b"text_pair", b"model", b"timeout_ms", b"top_k", b"truncate", b"POST", b"HEAD", b" HTTP/1.0"],
    *[
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\n",
    ],
    *[
        b"expect: 100-continue\r\n",
        b"upgrade: h2c\r\n",
        b"content-encoding: gzip\r\n",
        b"%00",
        b"..",
        b"//",
        b"?",
        b"#",
    ],
]


def mutate(data: bytes, random: Random) -> bytes:
    """Return the data after one to MOST_CHANGES changes."""
    for _ in range(random.randint(1, MOST_CHANGES)):
        data = random.choice(CHANGES)(data, random)
    return data


def _change_byte(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _flip_bit(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes(byte ^ (1 << random.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _cut(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    return data[:end] + data[start:end] * random.choice([1, 2, 50]) + data[end:]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(TOKENS) + data[at:]


def _replace(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    return data[:start] + random.choice(TOKENS) + data[end:]


def _swap(data: bytes, random: Random) -> bytes:
    start, end = _slice(data, random)
    return data[end:] + data[start:end] + data[:start]


def _slice(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice([1, 2, 5, 20]))


CHANGES = [_change_byte, _flip_bit, _cut, _repeat, _insert, _replace, _swap]
