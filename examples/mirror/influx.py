"""An InfluxDB server of one's own, if there is one on this machine."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

START_LIMIT_S = 60
STOP_LIMIT_S = 30
# Asked from where the server is, which may be a network of its own.
PING = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"


def is_there() -> bool:
    return shutil.which("influxd") is not None


class Influx:
    """An influxd 1.x with its own directory and ports. Use it in a `with` block. `place` is a command
    that runs another one somewhere else, such as in a network namespace."""

    def __init__(self, data: Path, port: int, inner_port: int, place: list[str] | None = None):
        self._place = place or []
        self.url = f"http://127.0.0.1:{port}"
        self._dir = data / "influxdb"
        self._ports = {"http": port, "": inner_port}

    def __enter__(self) -> "Influx":
        self._dir.mkdir()
        config = self._dir / "influxd.toml"
        config.write_text(self._config())
        with (self._dir / "influxd.log").open("wb") as log:
            command = [*self._place, "influxd", "-config", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if time.monotonic() > until or self.process.poll() is not None:
                self.__exit__()
                raise RuntimeError("influxd did not start")
            time.sleep(0.1)
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _answers(self) -> bool:
        command = [*self._place, sys.executable, "-c", PING, f"{self.url}/ping"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _config(self) -> str:
        """The server's own configuration, moved into our directory and onto our ports."""
        # Without a home it does not even print it.
        env = os.environ | {"HOME": str(self._dir)}
        command = ["influxd", "config"]
        own = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        section, lines = "", []
        for line in own.splitlines():
            if found := re.match(r"\s*\[([\w-]+)\]", line):
                section = found[1]
            if found := re.match(r'(\s*)(dir|wal-dir) = "', line):
                place = self._dir / f"{section}-{found[2]}"
                line = f'{found[1]}{found[2]} = "{place}"'
            elif line.strip().startswith("bind-address") and section in self._ports:
                line = f'bind-address = "127.0.0.1:{self._ports[section]}"'
            elif line.startswith("reporting-disabled"):
                line = "reporting-disabled = true"
            lines.append(line)
        return "\n".join(lines)
