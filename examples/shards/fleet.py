"""What the drones say: a recorded flight, or an invented one, dealt out to many drones."""

import io
import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, NamedTuple

# The flight took place in the past: a sample from the future would be stamped anew on its way.
TAKE_OFF = datetime(2025, 6, 1, 10, 0, 0, tzinfo=timezone.utc)
# Ids are four digits; the first one decides on the shard.
IDS = [1204, 4711, 7001, 2877, 5500, 8130, 3019, 6642, 9321, 88]


class Record(NamedTuple):
    """One line of the log: when (microseconds since boot), what about, and the value as JSON."""

    t_us: int
    topic: str
    payload: bytes


class Sample(NamedTuple):
    """What a drone puts: its key, its time (nanoseconds since 1970) and its payload."""

    key: str
    time_ns: int
    payload: bytes


@dataclass(frozen=True)
class Drone:
    """A drone: its id and the part of the log that it flies."""

    name: str
    samples: list[Sample]

    @property
    def first_digit(self) -> str:
        return self.name[0]


def read_log(path: Path) -> list[Record]:
    """Reads a log in JSON lines packed with zstd, one object a line: t_us, key, value."""
    import zstandard

    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        return [_record(json.loads(line)) for line in lines]


def invent_log(count: int = 64_000) -> list[Record]:
    """A flight in circles, for a machine without the recorded one; the same at every call."""
    topics = ["vehicle_attitude/0", "sensor_combined/0", "battery_status/0", "vehicle_status/0"]
    records = []
    for number in range(count):
        angle = number / 500
        value = {
            "number": number,
            "x": round(40 * math.cos(angle), 6),
            "y": round(40 * math.sin(angle), 6),
            "z": round(-30 - 5 * math.sin(angle / 7), 6),
            "yaw": round((angle + math.pi / 2) % (2 * math.pi), 6),
            "volts": round(16.8 - number / count, 4),
        }
        # Two samples in a millisecond, as in real logs: time alone names no sample.
        line = {"t_us": number // 2 * 1000, "key": topics[number % len(topics)], "value": value}
        records.append(_record(line))
    return records


def _record(line: dict) -> Record:
    payload = json.dumps(line["value"], separators=(",", ":")).encode()
    return Record(line["t_us"], line["key"], payload)


def deal(log: list[Record], drones: int, samples: int) -> list[Drone]:
    """Gives each drone its own part of the log, so that together they fly all of it."""
    fleet = []
    for index in range(drones):
        # A round of ten ids, then the next ten: 1204, ..., 12041, ...
        round_, place = divmod(index, len(IDS))
        name = f"{IDS[place]:04}" + (str(round_) if round_ else "")
        begin = index * len(log) // drones
        part = [log[(begin + offset) % len(log)] for offset in range(samples)]
        fleet.append(Drone(name, list(_samples(name, part))))
    return fleet


def _samples(name: str, part: list[Record]) -> Iterator[Sample]:
    """Keys and times of one drone. The autopilot's clock ticks in microseconds and logs several
    samples in one tick; nanoseconds count them, so that each has a name of its own: key and time."""
    seen: set[tuple[str, int]] = set()
    take_off_ns = int(TAKE_OFF.timestamp()) * 1_000_000_000
    for record in part:
        key = f"fleet/drone/{name}/{record.topic}"
        time_ns = take_off_ns + record.t_us * 1_000
        while (key, time_ns) in seen:
            time_ns += 1
        seen.add((key, time_ns))
        yield Sample(key, time_ns, record.payload)
