#!/usr/bin/env python3
"""Seoul and Ohio: two routers that keep the same keys, a line between them that breaks, one truth.

Run it with `make demo-mirror`. It starts the two routers with the configurations beside it, puts a
recorded flight half into the one and half into the other, cuts the line between them in the middle
of the flight, changes and deletes on both sides meanwhile, mends the line, and has `weir storage
verify` compare what both hold. Then each is stopped in turn, and the other answers for everything.
Exit status: 0 if both hold exactly what was put last, 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zenoh

HERE = Path(__file__).resolve().parent
# The flight and the router processes are those of the shards' demo.
sys.path.insert(0, str(HERE.parent / "shards"))

import fleet  # noqa: E402
import influx  # noqa: E402
from partition import Line  # noqa: E402
from routers import Router, free_ports  # noqa: E402

ROOT = HERE.parent.parent
LOG = ROOT.parent / "shared/data/px4-flight-181s.ndjson.zst"
SEOUL, OHIO = "seoul_rocks_backup_node", "us_east_master_backup_node"
NOTE = "global/notes/drone/1204"
CLIENT_ID = bytes.fromhex("f1ee70")
# Between two looks at something that is about to happen, and how long it may take.
LOOK_S = 0.1
LIMIT_S = 60


def main() -> int:
    args = arguments()
    if shutil.which(args.weir) is None:
        sys.exit(f"there is no program {args.weir}: build it with `make demo-mirror`, or name it with --weir")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    log = fleet.read_log(args.log) if args.log.exists() else fleet.invent_log()
    # Evenly from all of the flight.
    log.sort(key=lambda record: record.t_us)
    samples = telemetry(log[:: max(1, len(log) // args.samples)])
    say(f"A flight of {len(samples):,} samples on {len({s.key for s in samples})} keys.\n")
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-demo-")))
        return fly(stack, args.weir, data, samples, args.policy)


def fly(
    stack: contextlib.ExitStack, weir: str, data: Path, samples: list[fleet.Sample], policy: Path
) -> int:
    ports = free_ports(4)
    policies = data / "policies"
    policies.mkdir()
    if policy.exists():
        shutil.copy(policy, policies)
    else:
        say(f"There is no {policy}: of two notes the later one wins. Build it with policies/build.\n")
    more = ("--cfg", f"policies/dir:{json.dumps(str(policies))}")
    seoul = stack.enter_context(Router(weir, HERE / "seoul.json5", data, ports[0], [], more))
    line = stack.enter_context(Line(ports[0]))
    config = HERE / "ohio.json5"
    if influx.is_there():
        config = HERE / "ohio-influxdb.json5"
        server = stack.enter_context(influx.Influx(data, ports[2], ports[3]))
        more += ("--cfg", f"storages/{OHIO}/url:{json.dumps(server.url)}")
    else:
        say("There is no influxd: Ohio keeps telemetry in files.\n")
    ohio = stack.enter_context(Router(weir, config, data, ports[1], [line.port], more))
    for router in (seoul, ohio):
        places = [text.split(maxsplit=1)[1] for text in router.lines if text.split()[:1] == ["storage"]]
        for place in places:
            say(f"  {router.name.split('-')[0]:6} {router.endpoint:22} {place.replace(str(data), '...')}")
    in_seoul = stack.enter_context(open_client(seoul))
    in_ohio = stack.enter_context(open_client(ohio))
    wait_until(lambda: mirrors(in_seoul, SEOUL), "Seoul has not found Ohio")
    say("They have found each other: the same key expression is all that they were told.\n")

    # What is newest of each key, by the time at its source.
    truth: dict[str, fleet.Sample] = {}
    third = len(samples) // 3
    say(f"Together: {third:,} samples put in Seoul.")
    put(in_seoul, samples[:third], truth)
    in_seoul.put(NOTE, json.dumps(["took off"]))
    settle(in_seoul, SEOUL)
    compare(weir, seoul)

    say("\nThe line is cut. Neither reaches the other.")
    line.cut()
    wait_until(lambda: state(in_seoul, SEOUL) == "gone", "Seoul has not noticed")
    wait_until(lambda: state(in_ohio, OHIO) == "gone", "Ohio has not noticed")
    # Every second one here, every second one there.
    put(in_seoul, samples[third : 2 * third : 2], truth)
    put(in_ohio, samples[third + 1 : 2 * third : 2], truth)
    # A delete without a timestamp deletes what Ohio holds: what both had before the cut.
    later = {sample.key for sample in samples[third:]}
    gone = sorted({sample.key for sample in samples[:third]} - later)[::10]
    for key in gone:
        in_ohio.delete(key)
        del truth[key]
    in_seoul.put(NOTE, json.dumps(["battery is low"]))
    in_ohio.put(NOTE, json.dumps(["parcel is on board"]))
    settle(in_seoul, SEOUL)
    settle(in_ohio, OHIO)
    say(f"  {(third + 1) // 2:,} samples put in Seoul, {third // 2:,} in Ohio; {len(gone)} keys deleted in Ohio")
    say(f"  each notes something on {NOTE}: {note(in_seoul)} in Seoul, {note(in_ohio)} in Ohio")

    passed, began = line.passed_bytes, time.monotonic()
    line.heal()
    say("\nThe line is mended.")
    wait_until(lambda: state(in_seoul, SEOUL) == "in_step", "they do not come together again")
    took, passed = time.monotonic() - began, line.passed_bytes - passed
    say(f"  in step again after {took:.1f} s, reconnecting included; {passed:,} bytes went over the line")
    compare(weir, seoul)
    compare(weir, seoul, "seoul_notes", "ohio_notes")
    say(f"  {NOTE}: {note(in_seoul)} in Seoul, {note(in_ohio)} in Ohio")

    say(f"\nTogether again: {len(samples) - 2 * third:,} samples put in Ohio.")
    put(in_ohio, samples[2 * third :], truth)
    settle(in_ohio, OHIO)
    compare(weir, seoul)
    show(in_seoul, SEOUL)

    say("\nSeoul is stopped; Ohio answers for everything:")
    in_seoul.close()
    seoul.__exit__()
    return 0 if answers(in_ohio, truth) else 1


def telemetry(log: list[fleet.Record]) -> list[fleet.Sample]:
    """The flight on the mirrored keys, with rising times."""
    take_off_ns = int(fleet.TAKE_OFF.timestamp()) * 1_000_000_000
    samples, seen = [], set()
    for record in log:
        # A topic is spread over keys of a second each, so that there are more than a few.
        key = f"global/telemetry/drone/1204/{record.topic}/{record.t_us // 1_000_000}"
        time_ns = take_off_ns + record.t_us * 1_000
        # Two samples of one key at one time would be one version: a nanosecond keeps them apart.
        while (key, time_ns) in seen:
            time_ns += 1
        seen.add((key, time_ns))
        samples.append(fleet.Sample(key, time_ns, record.payload))
    return sorted(samples, key=lambda sample: sample.time_ns)


def put(session: zenoh.Session, samples: list[fleet.Sample], truth: dict[str, fleet.Sample]) -> None:
    for sample in samples:
        session.put(
            sample.key,
            sample.payload,
            timestamp=timestamp(sample),
            congestion_control=zenoh.CongestionControl.BLOCK,
        )
        if sample.key not in truth or truth[sample.key].time_ns < sample.time_ns:
            truth[sample.key] = sample


def timestamp(sample: fleet.Sample) -> zenoh.Timestamp:
    seconds, nanos = divmod(sample.time_ns, 1_000_000_000)
    return zenoh.Timestamp(zenoh.NTP64(seconds, nanos), CLIENT_ID)


def note(session: zenoh.Session) -> str:
    """What is noted, as whoever asks there is answered."""
    notes = [r.ok.payload.to_string() for r in session.get(NOTE) if r.ok is not None]
    return " and ".join(sorted(set(notes))) or "nothing"


def compare(weir: str, at: Router, one: str = SEOUL, other: str = OHIO) -> None:
    """Has the program compare both storages, and shows what it says."""
    command = ["storage", "verify", one, "--against", other, "--within", "30s", "-e", at.endpoint]
    ended = subprocess.run([weir, *command], stdout=subprocess.PIPE, text=True, check=False)
    say(f"  $ weir {' '.join(command[:5])}\n  {ended.stdout.strip()}")
    if ended.returncode != 0:
        raise RuntimeError(f"they differ: weir ended with {ended.returncode}")


def answers(session: zenoh.Session, truth: dict[str, fleet.Sample]) -> bool:
    """Whether one storage alone holds what was put last, and nothing else."""
    replies = session.get("global/telemetry/**", timeout=LIMIT_S)
    found = {str(r.ok.key_expr): r.ok.payload.to_bytes() for r in replies if r.ok is not None}
    missing = len(truth.keys() - found.keys())
    risen = len(found.keys() - truth.keys())
    different = sum(found[key] != truth[key].payload for key in truth.keys() & found.keys())
    say(f"  {len(truth):,} keys put, {len(found):,} found, {missing} missing, {different} different, {risen} back from the dead")
    return not (missing or risen or different)


def show(session: zenoh.Session, storage: str) -> None:
    mirror = mirrors(session, storage)[0]
    say(
        f"  taken {mirror['taken']:,}, given {mirror['given']:,} in {mirror['rounds']} rounds; "
        f"{mirror['sent_bytes']:,} bytes sent, {mirror['received_bytes']:,} received"
    )


def state(session: zenoh.Session, storage: str) -> str:
    found = mirrors(session, storage)
    return found[0]["state"] if found else ""


def mirrors(session: zenoh.Session, storage: str) -> list[dict]:
    return status(session, storage).get("mirrors") or []


def settle(session: zenoh.Session, storage: str) -> None:
    """Waits until a storage has decided what it was sent."""
    seen = -1

    def is_settled() -> bool:
        nonlocal seen
        shown = status(session, storage)
        before, seen = seen, shown["totals"]["received"]
        return before == seen and shown["queued"] == 0

    wait_until(is_settled, f"{storage} is not done")


def status(session: zenoh.Session, storage: str) -> dict:
    for reply in session.get(f"@weir/*/storages/{storage}", timeout=10):
        if reply.ok is not None:
            return json.loads(reply.ok.payload.to_string())
    return {}


def open_client(router: Router) -> zenoh.Session:
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps([router.endpoint]))
    config.insert_json5("scouting/multicast/enabled", "false")
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
    parser = argparse.ArgumentParser(description="Two mirrored routers and a line that breaks.")
    number = lambda text: max(30, int(text))
    parser.add_argument("--samples", type=number, default=30_000, help="samples of the flight (30000)")
    parser.add_argument("--log", type=Path, default=LOG, help="flight log, JSON lines in zstd")
    policies = os.environ.get("WEIR_BENCH_POLICIES", ROOT / "policies/wasm")
    policy = Path(policies) / "grow-only-set.wasm"
    parser.add_argument("--policy", type=Path, default=policy, help="the resolver of notes")
    weir = os.environ.get("WEIR_BIN", "weir")
    parser.add_argument("--weir", default=weir, help="the program (WEIR_BIN, or weir in PATH)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
