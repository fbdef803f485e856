"""The sockets that the server listens on, and how they are closed without a reset."""

import contextlib
import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a Unix socket, which belongs to whoever made it last."""

    path: Path
    inode: int

    def remove(self) -> None:
        """Remove it, unless another server has put its own there: nobody can connect any more."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound sockets: the main one and, where one is asked for, that of the second port."""

    main: socket.socket
    admin: socket.socket | None = None
    file: SocketFile | None = None  # of a main socket that is a Unix socket
    shared: bool = False  # whether other processes may go on serving on them when this one ends

    @property
    def sockets(self) -> list[socket.socket]:
        """All of them."""
        return [self.main] if self.admin is None else [self.main, self.admin]

    def refuse(self) -> None:
        """Let nobody new in, while those who have begun to come in still can; does nothing to shared sockets."""
        if self.shared:
            return
        if self.file is not None:
            self.file.remove()
        for listener in self.sockets:
            refuse_handshakes(listener)

    def close(self) -> None:
        """Close them, and remove what they leave."""
        if self.file is not None and not self.shared:
            self.file.remove()
        for listener in self.sockets:
            listener.close()


def bind(settings: Settings) -> tuple[Listeners, Settings]:
    """Return bound sockets that do not listen yet, and the settings with the admin port's number; raises StartError."""
    file = None
    if settings.uds is None:
        main = _bind_port(settings.host, settings.port)
    else:
        main, file = _bind_file(settings.uds, int(settings.uds_mode, 8))
    listeners = Listeners(main, file=file)
    if settings.admin_port is None:
        return listeners, settings
    try:
        admin = _bind_port(settings.admin_host, settings.admin_port)
    except StartError:
        listeners.close()
        raise
    return Listeners(main, admin, file), settings.model_copy(update={"admin_port": admin.getsockname()[1]})


def _bind_port(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
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


def _bind_file(path: Path, mode: int) -> tuple[socket.socket, SocketFile]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        mask = os.umask(0o777 & ~mode)  # so that at no moment others may connect
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        inode = path.stat().st_ino
    except OSError as error:  # "AF_UNIX path too long" has no number
        listener.close()
        raise StartError(f"cannot listen on {path}: {error.strerror or error}") from error
    except StartError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener, SocketFile(path, inode)


def _remove_stale(path: Path) -> None:
    """Remove a socket that a server left when it was killed; raises StartError for one in use or another file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"cannot listen on {path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise StartError(f"cannot listen on {path}: another server does")


def refuse_handshakes(listener: socket.socket) -> None:
    """Let no new TCP handshake begin, while those that have begun can still be finished and accepted.

    The filter drops segments that carry SYN alone: their senders try again in a second, and are refused once the
    listener is closed. Other systems than Linux filter nothing, nor do kernels that let no ordinary user; there, a
    caller whose handshake is under way when the listener is closed is reset. A Unix socket has no handshakes.
    """
    if listener.family == socket.AF_UNIX:
        return
    instructions = ctypes.create_string_buffer(DROP_SYN)
    program = struct.pack("HP", len(DROP_SYN) // 8, ctypes.addressof(instructions))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Take every connection that waits to be accepted: closing a listener resets those."""
    with contextlib.suppress(OSError):  # there is none left
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection
