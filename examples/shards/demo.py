#!/usr/bin/env python3
"""Three shard routers and a fleet: shows where each drone's samples go, and gets them all back.

Run it with `make demo`. It starts three routers with the configurations beside it, connects one
client to the first of them, puts a recorded flight as many drones, and compares what one query
over the whole fleet returns with what was put: every key, timestamp, encoding and payload byte.
Exit status: 0 if nothing is missing, doubled or different, 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import zenoh

import fleet
from routers import Router, free_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOG = ROOT.parent / "shared/data/px4-flight-181s.ndjson.zst"
CONFIGS = [HERE / f"shard-{number}.json5" for number in (1, 2, 3)]
SHARDS = {"shard-1": "[0-3]", "shard-2": "[4-6]", "shard-3": "[7-9]"}

# Who puts; timestamps carry it besides the time.
CLIENT_ID = bytes.fromhex("f1ee70")
ENCODING = "application/json"
# Between two looks at something that is about to happen, and how long it may take.
LOOK_S = 0.05
LIMIT_S = 120


def main() -> int:
    args = arguments()
    if shutil.which(args.weir) is None:
        sys.exit(f"there is no program {args.weir}: build it with `make demo`, or name it with --weir")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    log = fleet.read_log(args.log) if args.log.exists() else fleet.invent_log()
    drones = fleet.deal(log, args.drones, min(args.samples, len(log)))
    count = sum(len(drone.samples) for drone in drones)
    what = f"{args.log.name}" if args.log.exists() else f"an invented flight ({args.log} is not there)"
    say(f"{len(drones)} drones fly {what}: {count:,} samples")

    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-demo-")))
        routers = start_routers(stack, args.weir, data)
        session = stack.enter_context(open_client(routers[0]))
        wait_for_mesh(session, routers, drones)
        put_all(session, drones)
        wait_for_storages(session, routers, drones)
        return get_and_compare(session, routers, drones)


def start_routers(stack: contextlib.ExitStack, binary: str, data: Path) -> list[Router]:
    """Starts three routers, each connected to those before it."""
    say("\nThree routers, one shard each:")
    ports = free_ports(len(CONFIGS))
    routers = []
    for number, config in enumerate(CONFIGS):
        router = stack.enter_context(Router(binary, config, data, ports[number], ports[:number]))
        routers.append(router)
        keys = f"fleet/drone/{SHARDS[router.name]}**"
        say(f"  {router.name}  {keys:20}  {router.endpoint}  {router.lines[-1]}")
    return routers


def open_client(router: Router) -> zenoh.Session:
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps([router.endpoint]))
    config.insert_json5("scouting/multicast/enabled", "false")
    session = zenoh.open(config)
    say(f"\nOne client, connected to {router.name} alone. It knows nothing of shards.")
    return session


def wait_for_mesh(session: zenoh.Session, routers: list[Router], drones: list[fleet.Drone]) -> None:
    """Waits until the client's router knows a storage for every drone."""

    def is_meshed() -> bool:
        return all(
            session.declare_publisher(f"fleet/drone/{drone.name}/hello").matching_status.matching
            for drone in drones
        )

    wait_until(is_meshed, "the routers have not told each other what they store")
    wait_until(
        lambda: len(storages(session)) == len(routers), "not every router answers for its storage"
    )


def put_all(session: zenoh.Session, drones: list[fleet.Drone]) -> None:
    """Puts all drones' samples, one of each in turn, as they would come over the air."""
    began = time.monotonic()
    count = 0
    for samples in zip(*(drone.samples for drone in drones)):
        for sample in samples:
            session.put(
                sample.key,
                sample.payload,
                encoding=ENCODING,
                timestamp=timestamp(sample),
                congestion_control=zenoh.CongestionControl.BLOCK,
            )
            count += 1
    took = time.monotonic() - began
    say(f"  put {count:,} samples in {took:.1f} s ({count / took:,.0f}/s), timestamps of June 2025")


def wait_for_storages(
    session: zenoh.Session, routers: list[Router], drones: list[fleet.Drone]
) -> None:
    """Waits until everything is stored, and shows how much each router received and stored."""
    count = sum(len(drone.samples) for drone in drones)

    def is_stored() -> bool:
        return sum(s["totals"]["applied"] for s in storages(session).values()) >= count

    wait_until(is_stored, f"the storages have not stored {count} samples")
    say("\nWhat each storage received and stored:")
    for router in routers:
        status = storages(session)[router.id]
        totals = status["totals"]
        say(f"  {router.name}  {totals['received']:9,} received  {totals['applied']:9,} stored")


def get_and_compare(
    session: zenoh.Session, routers: list[Router], drones: list[fleet.Drone]
) -> int:
    """Gets everything back with one query, and says what differs from what was put."""
    put = {(s.key, str(timestamp(s))): s.payload for drone in drones for s in drone.samples}
    names = {router.id: router.name for router in routers}
    selector = f"fleet/drone/**?_time=[{time_range(drones)}]"
    say(f"\nOne query: {selector}")
    began = time.monotonic()
    found: Counter[tuple[str, str]] = Counter()
    places: Counter[tuple[str, str]] = Counter()
    different = strange = errors = 0
    replies = session.get(
        selector,
        target=zenoh.QueryTarget.ALL,
        consolidation=zenoh.ConsolidationMode.NONE,
        timeout=LIMIT_S,
    )
    for reply in replies:
        if reply.err is not None:
            say(f"  error: {reply.err.payload.to_string()}")
            errors += 1
            continue
        sample, key = reply.ok, str(reply.ok.key_expr)
        name = (key, str(sample.timestamp))
        replier = names.get(str(reply.replier_id.zid), "?")
        found[name] += 1
        places[key.split("/")[2], replier] += 1
        if name not in put:
            strange += 1
        elif sample.payload.to_bytes() != put[name] or str(sample.encoding) != ENCODING:
            different += 1
    took = time.monotonic() - began
    count = sum(found.values())
    say(f"  {count:,} samples from {len(names)} routers in {took:.1f} s ({count / took:,.0f}/s)")

    say("\nWhere each drone went:")
    say("  drone    " + "".join(f"{name:>12}" for name in SHARDS))
    misplaced = 0
    for drone in drones:
        counts = {name: places[drone.name, name] for name in SHARDS}
        say(f"  {drone.name:9}" + "".join(f"{n or '-':>12}" for n in counts.values()))
        misplaced += sum(n for name, n in counts.items() if name != shard_of(drone))

    missing = len(put.keys() - found.keys())
    doubled = sum(times - 1 for times in found.values())
    say(
        f"\n{len(put)} samples put, {count} found, "
        f"{missing} missing, {doubled} doubled, {different} different"
    )
    wrong = {"nobody put": strange, "in a wrong shard": misplaced, "error replies": errors}
    for text, number in wrong.items():
        if number:
            say(f"{number} {text}")
    return 1 if missing or doubled or different or any(wrong.values()) else 0


def timestamp(sample: fleet.Sample) -> zenoh.Timestamp:
    """The event time as Zenoh carries it. Its text, 64 bits and an id, loses nothing."""
    seconds, nanos = divmod(sample.time_ns, 1_000_000_000)
    return zenoh.Timestamp(zenoh.NTP64(seconds, nanos), CLIENT_ID)


def storages(session: zenoh.Session) -> dict[str, dict]:
    """The status of each router's storage, by router."""
    replies = session.get("@weir/*/storages/*", timeout=10, target=zenoh.QueryTarget.ALL)
    return {
        str(reply.ok.key_expr).split("/")[1]: json.loads(reply.ok.payload.to_string())
        for reply in replies
        if reply.ok is not None
    }


def shard_of(drone: fleet.Drone) -> str:
    """The shard whose class `[a-b]` holds the first digit of the drone's id."""
    is_inside = lambda pattern: pattern[1] <= drone.first_digit <= pattern[3]
    return next(name for name, pattern in SHARDS.items() if is_inside(pattern))


def time_range(drones: list[fleet.Drone]) -> str:
    """From take-off to the second after the last sample, for `_time`."""
    last = max(sample.time_ns for drone in drones for sample in drone.samples)
    seconds = last // 1_000_000_000 + 1
    end = fleet.datetime.fromtimestamp(seconds, fleet.timezone.utc)
    rfc3339 = lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{rfc3339(fleet.TAKE_OFF)}..{rfc3339(end)}"


def wait_until(condition, complaint: str) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(complaint)
        time.sleep(LOOK_S)


def say(text: str) -> None:
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Three shard routers and a fleet of drones.")
    number = lambda text: max(1, int(text))
    parser.add_argument("--drones", type=number, default=12, help="how many fly (12)")
    parser.add_argument("--samples", type=number, default=5_400, help="samples of each (5400)")
    parser.add_argument("--log", type=Path, default=LOG, help="flight log, JSON lines in zstd")
    weir = os.environ.get("WEIR_BIN", "weir")
    parser.add_argument("--weir", default=weir, help="the program (WEIR_BIN, or weir in PATH)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
