#!/usr/bin/env python3
"""A vehicle drives through a tunnel: nothing is lost, alarms come out first, and the cloud says so.

Run it with `make demo-tunnel`. It starts the two routers with the configurations beside it, joined by
a cable between two network namespaces (or, where those cannot be made, by a proxy on loopback), has a
recorded flight put on board at a steady rate, pulls the cable in the middle, puts it back, and watches
the link bring the cloud what it lacks. In the end it asks each store by itself and compares both with
what was put. Exit status: 0 if nothing is missing and nothing doubled, 1 otherwise.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import zenoh

HERE = Path(__file__).resolve().parent
# The flight and the router processes are those of the shards' demo, the server of the mirrors'.
sys.path[:0] = [str(HERE.parent / name) for name in ("shards", "mirror")]

import fleet  # noqa: E402
from cable import Namespaces, Proxy, why_no_namespaces  # noqa: E402
from influx import Influx  # noqa: E402
from routers import Router, free_ports  # noqa: E402

ROOT = HERE.parent.parent
LOG = ROOT.parent / "shared/data/px4-flight-181s.ndjson.zst"
KEYS, ALARM = "vehicle/42/**", "vehicle/42/alarm"
# Between two looks at something that is about to happen, and how long it may take.
LOOK_S = 0.1
LIMIT_S = 120
# Sensors put in bursts of so long.
BURST_S = 0.01


class Put(NamedTuple):
    """A sample as it is named: by its key and its timestamp."""

    key: str
    timestamp: str


class Site(Router):
    """A router in a place of its own. Clients reach it by a socket in the file system, cable or not."""

    def __init__(self, weir: str, config: Path, data: Path, place: list[str], more: list[str]):
        super().__init__(weir, config, data, 0, [])
        self.endpoint = f"unixsock-stream/{data / self.name}.sock"
        command = [weir, "run", "-c", str(config), "-l", self.endpoint]
        command += ["--data-dir", str(data / self.name), "--http-listen", "none"]
        self._command = [*place, *command, *more]


class Sensors:
    """What puts on board: the flight over and over at a steady rate, and an alarm a second."""

    def __init__(self, session: zenoh.Session, log: list[fleet.Record], rate: int):
        self._session, self._rate = session, rate
        self._records = itertools.cycle(log)
        # A key is one text however often it is put, and a payload one of the log's.
        self._keys: dict[str, str] = {}
        self.put: dict[Put, bytes] = {}
        self.alarms = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _drive(self) -> None:
        began, count = time.monotonic(), 0
        while not self._stop.is_set():
            passed = time.monotonic() - began
            for record in itertools.islice(self._records, int(passed * self._rate) - count):
                self._one(self._key(record.topic), record.payload)
                count += 1
            if passed >= self.alarms:
                self._one(ALARM, json.dumps({"alarm": self.alarms}).encode())
                self.alarms += 1
            time.sleep(BURST_S)

    def _key(self, topic: str) -> str:
        return self._keys.setdefault(topic, f"vehicle/42/{topic}")

    def _one(self, key: str, payload: bytes) -> None:
        stamp = self._session.new_timestamp()
        # A line that carries nothing would hold up, for seconds, whoever asked to wait for it.
        drop = zenoh.CongestionControl.DROP
        self._session.put(key, payload, timestamp=stamp, congestion_control=drop)
        self.put[Put(key, str(stamp))] = payload


def main() -> int:
    args = arguments()
    if shutil.which(args.weir) is None:
        sys.exit(f"there is no program {args.weir}: build it with `make demo-tunnel`, or name it with --weir")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    log = fleet.read_log(args.log) if args.log.exists() else fleet.invent_log()
    log.sort(key=lambda record: record.t_us)
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-demo-")))
        missing = why_no_namespaces()
        if missing is None:
            cable = stack.enter_context(Namespaces())
            say("Vehicle and cloud stand in network namespaces of their own, with a cable between them.")
        else:
            cable = stack.enter_context(Proxy(free_ports(1)[0]))
            say(f"No network namespaces: {missing}. A proxy on loopback is the cable.")
        return drive(stack, args, data, cable, log)


def drive(
    stack: contextlib.ExitStack, args: argparse.Namespace, data: Path, cable, log: list[fleet.Record]
) -> int:
    policies = data / "policies"
    policies.mkdir()
    if args.policy.exists():
        shutil.copy(args.policy, policies)
    else:
        say(f"There is no {args.policy}: alarms wait like the rest. Build it with policies/build.")
    config, more = HERE / "cloud.json5", ["-l", cable.listens]
    if args.influx:
        server = stack.enter_context(Influx(data, *free_ports(2), cable.cloud))
        config = HERE / "cloud-influxdb.json5"
        more += ["--cfg", f"storages/telemetry/url:{json.dumps(server.url)}"]
        say("The cloud stores in InfluxDB.")
    cloud = stack.enter_context(Site(args.weir, config, data, cable.cloud, more))
    more = ["-e", cable.connects, "--cfg", f"policies/dir:{json.dumps(str(policies))}"]
    more += ["--cfg", f"forward/cloud/rate:{json.dumps(args.drain)}"] if args.drain else []
    vehicle = stack.enter_context(Site(args.weir, HERE / "vehicle.json5", data, cable.vehicle, more))
    on_board, in_cloud = open_client(vehicle), open_client(cloud)
    stack.callback(on_board.close)
    stack.callback(in_cloud.close)
    wait_until(lambda: state(on_board) == "up", "the link has not found the cloud")
    say("The link has found the cloud's storage. Its keys are all that it was told.\n")

    live = Live(in_cloud)
    sensors = Sensors(on_board, log, args.rate)
    sensors.start()
    say(f"On the road: {args.rate:,} samples a second.")
    time.sleep(args.road)
    show(on_board)

    say("\nInto the tunnel: the cable is pulled.")
    cable.pull()
    until = time.monotonic() + args.tunnel
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 5))
        show(on_board)

    # As long as the cable is out, whoever answers in the cloud is its own store.
    [store] = {replier(reply) for reply in versions(in_cloud, ALARM)}
    waiting, alarms = status(on_board)["queued"], sensors.alarms
    before, again = cable.passed_bytes, time.monotonic()
    live.await_next()
    cable.put_back()
    say(f"\nOut of the tunnel: the cable is back. {waiting['records']:,} samples wait, {waiting['bytes']:,} bytes.")
    arriving = Alarms(in_cloud, store, alarms)
    wait_until(live.has_come, "nothing comes live")
    say(f"  the first live sample was in the cloud {live.came - again:.1f} s later, reconnecting included")
    # For some more seconds what is new and what has waited leave side by side.
    ending = threading.Timer(args.road, sensors.stop)
    ending.start()
    command = ["forward", "watch", "cloud", "--until-certified", "-e", vehicle.endpoint]
    say(f"  $ weir {' '.join(command[:4])}")
    # A rate that keeps up with the sensors needs no longer than the tunnel was.
    limit = LIMIT_S + 3 * args.tunnel
    ended = subprocess.run([args.weir, *command], check=False, timeout=limit)
    ending.join()
    arriving.stop()
    if ended.returncode != 0:
        say(f"weir ended with {ended.returncode}")
        return 1
    if arriving.seconds is not None:
        say(f"  the {alarms} alarms were in the cloud {arriving.seconds:.1f} s after the cable was back,")
    say(f"  everything was certified {time.monotonic() - again:.1f} s after")
    upstream = status(on_board)["upstreams"][0]
    say(
        f"  {upstream['shipped_records']:,} samples brought in bulk; "
        f"{cable.passed_bytes - before:,} bytes over the cable since, live traffic included"
    )

    say("\nThe cable is pulled again, so that each store answers for itself:")
    sites = [("on board", on_board), ("in the cloud", in_cloud)]
    cable.pull()
    wait_until(lambda: state(on_board) == "down", "the link has not noticed")
    found = [(name, Found(sensors.put, session)) for name, session in sites]
    for name, each in found:
        each.say(name)
    return 0 if all(each.is_well for _, each in found) else 1


class Live:
    """When something comes to the cloud live, by a subscriber there."""

    def __init__(self, session: zenoh.Session):
        self.came: float | None = time.monotonic()
        self._subscriber = session.declare_subscriber(KEYS, self._note)

    def _note(self, _: zenoh.Sample) -> None:
        if self.came is None:
            self.came = time.monotonic()

    def await_next(self) -> None:
        self.came = None

    def has_come(self) -> bool:
        return self.came is not None


class Alarms:
    """When the alarms that waited were in the cloud's store, in seconds from now."""

    def __init__(self, session: zenoh.Session, store: str, expected: int):
        self._session, self._store, self._expected = session, store, expected
        self._began = time.monotonic()
        self.seconds: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            found = [reply for reply in versions(self._session, ALARM) if replier(reply) == self._store]
            if len(found) >= self._expected:
                self.seconds = time.monotonic() - self._began
                return


class Found:
    """What the store at one end of the cable holds, compared with what was put: one version after
    another, since there are millions."""

    def __init__(self, put: dict[Put, bytes], session: zenoh.Session):
        self._expected, self._different, self._doubled, self._invented = len(put), 0, 0, 0
        seen: set[Put] = set()
        for reply in versions(session, KEYS):
            if reply.ok is None:
                raise RuntimeError(f"a store cannot answer: {reply.err.payload.to_string()}")
            name = Put(str(reply.ok.key_expr), str(reply.ok.timestamp))
            payload = put.get(name)
            if payload is None:
                self._invented += 1
            elif name in seen:
                self._doubled += 1
            else:
                seen.add(name)
                self._different += payload != reply.ok.payload.to_bytes()
        self._seen = len(seen)
        self.is_well = self._seen == len(put) and not (self._doubled or self._different or self._invented)

    def say(self, name: str) -> None:
        say(
            f"  {name:12} {self._seen:,} of {self._expected:,}: {self._expected - self._seen} missing, "
            f"{self._doubled} doubled, {self._different} different, {self._invented} that nobody put"
        )


def versions(session: zenoh.Session, keys: str):
    """Every version of some keys that anybody who can be reached holds."""
    everything = f"{keys}?_time=[2020-01-01T00:00:00Z..]"
    return session.get(everything, timeout=LIMIT_S, consolidation=zenoh.ConsolidationMode.NONE)


def replier(reply: zenoh.Reply) -> str:
    return str(reply.replier_id.zid)


def show(session: zenoh.Session) -> None:
    link = status(session)
    queued = link["queued"]
    say(
        f"  {link['state']:9} {queued['records']:>9,} waiting, {queued['bytes']:>12,} bytes; "
        f"in {link['rates']['append_per_s']:,.0f}/s, out {link['rates']['drain_per_s']:,.0f}/s"
    )


def state(session: zenoh.Session) -> str:
    return status(session).get("state", "")


def status(session: zenoh.Session) -> dict:
    for reply in session.get("@weir/42/forward/cloud", timeout=10):
        if reply.ok is not None:
            return json.loads(reply.ok.payload.to_string())
    return {}


def open_client(router: Router) -> zenoh.Session:
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps([router.endpoint]))
    config.insert_json5("scouting/multicast/enabled", "false")
    # On the way to its own router a sample waits for a second before it is dropped.
    wait = "transport/link/tx/queue/congestion_control/drop/wait_before_drop"
    config.insert_json5(wait, "1000000")
    return zenoh.open(config)


def wait_until(condition, complaint: str) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(complaint)
        time.sleep(LOOK_S)


def say(text: str) -> None:
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A vehicle, a tunnel, and what the cloud holds afterwards.")
    parser.add_argument("--rate", type=int, default=10_000, help="samples a second (10000)")
    parser.add_argument("--road", type=float, default=5, help="seconds before and after the tunnel (5)")
    parser.add_argument("--tunnel", type=float, default=30, help="seconds in the tunnel (30)")
    parser.add_argument("--drain", help="bytes a second of the backlog, before they are packed (4MiB)")
    parser.add_argument("--influx", action="store_true", help="the cloud stores in InfluxDB (influxd 1.x)")
    parser.add_argument("--log", type=Path, default=LOG, help="flight log, JSON lines in zstd")
    policies = os.environ.get("WEIR_BENCH_POLICIES", ROOT / "policies/wasm")
    policy = Path(policies) / "alarms-first.wasm"
    parser.add_argument("--policy", type=Path, default=policy, help="what leaves first")
    weir = os.environ.get("WEIR_BIN", "weir")
    parser.add_argument("--weir", default=weir, help="the program (WEIR_BIN, or weir in PATH)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
