"""Router processes: started on ports of their own, waited for, ended by their process id."""

import os
import socket
import subprocess
import threading
from pathlib import Path

START_LIMIT_S = 30
STOP_LIMIT_S = 30


class Router:
    """One `weir run`, with its own directory and port. Use it in a `with` block."""

    def __init__(
        self, binary: str, config: Path, data: Path, port: int, peers: list[int], more: tuple = ()
    ):
        self.name = config.stem
        self.endpoint = f"tcp/127.0.0.1:{port}"
        self.log = data / f"{self.name}.log"
        command = [binary, "run", "-c", str(config), "-l", self.endpoint]
        command += ["--data-dir", str(data / self.name), "--http-listen", "none"]
        for peer in peers:
            command += ["-e", f"tcp/127.0.0.1:{peer}"]
        command += more
        # Settings of the shell that starts the demo are not for its routers.
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        self._command = command
        self.lines: list[str] = []

    def __enter__(self) -> "Router":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self._env, text=True
            )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,))
        self._reader.start()
        ready.wait(START_LIMIT_S)
        if not self.lines or not self.lines[-1].startswith("ready"):
            self.__exit__()
            raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()}")
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def _read(self, ready: threading.Event) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("ready"):
                ready.set()
        ready.set()  # it has ended: nobody need wait any longer

    @property
    def id(self) -> str:
        """Its Zenoh id, from the first lines that it prints."""
        return next(line.split()[1] for line in self.lines if line.split()[:1] == ["id"])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
