"""The socket that the server listens on, and how it is closed without a reset."""

import contextlib
import ctypes
import socket
import struct
import sys

from ladabert_serve.errors import StartError
from ladabert_serve.settings import Settings

# A classic BPF program (code, jump if true, jump if false, operand): drop TCP segments that carry SYN without ACK.
DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte with the flags
        (0x54, 0, 0, 0x12),  # and SYN | ACK
        (0x15, 0, 1, 0x02),  # equal SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
)
SO_ATTACH_FILTER = 26  # Linux; the socket module has no name for it
# Of each connection, in bytes. The kernel would let them grow to megabytes; one read returns up to the first.
SOCKET_BUFFERS = {socket.SO_RCVBUF: 32768, socket.SO_SNDBUF: 131072}


def bind(settings: Settings) -> socket.socket:
    """Return a bound socket that does not listen yet; raises StartError."""
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for buffer, size_bytes in SOCKET_BUFFERS.items():
            listener.setsockopt(socket.SOL_SOCKET, buffer, size_bytes)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
    listener.set_inheritable(True)
    return listener


def refuse_handshakes(listener: socket.socket) -> None:
    """Let no new TCP handshake begin, while those that have begun can still be finished and accepted.

    Closing a listener resets every connection in its backlog. The filter drops segments that carry SYN alone: their
    senders try again in a second, and are refused once the listener is closed. Other systems than Linux filter nothing.
    """
    instructions = ctypes.create_string_buffer(DROP_SYN)
    program = struct.pack("HP", len(DROP_SYN) // 8, ctypes.addressof(instructions))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def backlog(listener: socket.socket) -> int:
    """Return how many connections wait to be accepted, 0 where that is not known."""
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    except OSError:
        return 0
    return int.from_bytes(info[24:28], sys.byteorder)  # tcpi_unacked, which counts them on a listening socket
