"""The cable between a vehicle and the cloud, to be pulled and put back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "mirror"))

from partition import Line  # noqa: E402

VEHICLE_ADDRESS, CLOUD_ADDRESS, PORT = "10.77.42.1", "10.77.42.2", 7447


def why_no_namespaces() -> str | None:
    """What is missing for network namespaces; nothing if they can be made."""
    if shutil.which("ip") is None:
        return "`ip` is not installed (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"weir-try-{os.getpid()}"
    made = _run(["ip", "netns", "add", name], check=False)
    if made.returncode != 0:
        return made.stderr.strip()
    _run(["ip", "netns", "del", name])
    return None


class Namespaces:
    """Two network namespaces and a pair of interfaces between them. A cable that is pulled carries
    nothing and tells nobody: connections stay, and hear nothing. Use it in a `with` block."""

    listens = f"tcp/{CLOUD_ADDRESS}:{PORT}"
    connects = listens

    def __init__(self):
        self._vehicle, self._cloud = (f"weir-{site}-{os.getpid()}" for site in ("vehicle", "cloud"))
        self.vehicle = ["ip", "netns", "exec", self._vehicle]
        self.cloud = ["ip", "netns", "exec", self._cloud]

    def __enter__(self) -> "Namespaces":
        try:
            for name in (self._vehicle, self._cloud):
                _run(["ip", "netns", "add", name])
            _run(
                f"ip -n {self._vehicle} link add cable type veth peer name cable netns {self._cloud}".split()
            )
            for name, address in ((self._vehicle, VEHICLE_ADDRESS), (self._cloud, CLOUD_ADDRESS)):
                _run(["ip", "-n", name, "link", "set", "lo", "up"])
                _run(["ip", "-n", name, "address", "add", f"{address}/30", "dev", "cable"])
                _run(["ip", "-n", name, "link", "set", "cable", "up"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        # The interfaces go with them.
        for name in (self._vehicle, self._cloud):
            _run(["ip", "netns", "del", name], check=False)

    def pull(self) -> None:
        _run(["ip", "-n", self._vehicle, "link", "set", "cable", "down"])

    def put_back(self) -> None:
        _run(["ip", "-n", self._vehicle, "link", "set", "cable", "up"])

    @property
    def passed_bytes(self) -> int:
        """Both ways, with everything that TCP and Ethernet add."""
        shown = _run(["ip", "-n", self._vehicle, "-s", "-j", "link", "show", "cable"])
        stats = json.loads(shown.stdout)[0]["stats64"]
        return stats["rx"]["bytes"] + stats["tx"]["bytes"]


class Proxy:
    """A proxy on loopback instead, that ends its connections when it is pulled. Use it in a `with` block."""

    vehicle: list[str] = []
    cloud: list[str] = []

    def __init__(self, port: int):
        self.listens = f"tcp/127.0.0.1:{port}"
        self._line = Line(port)
        self.connects = f"tcp/127.0.0.1:{self._line.port}"

    def __enter__(self) -> "Proxy":
        self._line.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self._line.__exit__()

    def pull(self) -> None:
        self._line.cut()

    def put_back(self) -> None:
        self._line.heal()

    @property
    def passed_bytes(self) -> int:
        return self._line.passed_bytes


def _run(command: list[str], check: bool = True) -> subprocess.CompletedProcess:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended
