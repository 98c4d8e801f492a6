"""A TCP connection that can be cut."""

from __future__ import annotations

import socket
import threading
import time
from typing import Self


class Wire:
    """A TCP connection to a port of this machine that can be cut; a context manager.

    Attributes:
        url: http address of its near end.
    """

    def __init__(self, port: int) -> None:
        self._far = port
        self._near = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._near.getsockname()[1]}"
        self._whole, self._open = True, list[socket.socket]()
        self.refused = 0

    def cut(self) -> None:
        """Break what is open, and let nothing through."""
        self._whole = False
        for end in self._open:
            end.close()

    def mend_after_use(self) -> None:
        """Let everything through again once somebody has tried in vain."""
        while not self.refused:
            time.sleep(0.1)
        time.sleep(1)
        self._whole = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._near.accept()
            except OSError:
                return
            if not self._whole:
                self.refused += 1
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._far))
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()
