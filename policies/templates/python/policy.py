# world: prioritizer
"""Lets small samples leave a backlog before large ones.

The interface is wit/policy.wit. Errors are raised: Err(InitError_BadSettings("...")).
"""

import json

from componentize_py_types import Err
from wit_world.exports.backlog_priority import (
    Placement,
    Verdict,
    Verdict_Default,
    Verdict_Place,
)
from wit_world.exports.lifecycle import (
    Environment,
    Hooks,
    InitError_BadSettings,
    Manifest,
)
from wit_world.imports.types import Batch, Fields

# Bytes up to which a sample waits in lane 0, 1, 2...; what is larger, in the lane behind them.
steps = [256, 4096, 65536]


class Lifecycle:
    def init(self, environment: Environment) -> Manifest:
        global steps
        settings = json.loads(environment.settings)
        unknown = sorted(set(settings) - {"steps"})
        if unknown:
            raise Err(InitError_BadSettings(f"unknown setting `{unknown[0]}`, there is `steps`"))
        steps = settings.get("steps", steps)
        if not isinstance(steps, list) or not 1 <= len(steps) <= 7 or steps != sorted(steps):
            raise Err(InitError_BadSettings("`steps` is a list of 1 to 7 sizes in bytes, rising"))
        return Manifest(
            name="my-policy",
            version="0.1.0",
            hooks=Hooks.PRIORITIZE,
            needs=Fields.SIZE,
            payload_prefix=0,
            route_varies_with=Fields(0),
            counters=[],
            reasons=[],
        )


class BacklogPriority:
    def prioritize(self, link, batch: Batch) -> list[Verdict]:
        return [verdict(sample.payload_size) for sample in batch.samples]


def verdict(size: int) -> Verdict:
    if size == 0:
        return Verdict_Default()
    lane = sum(size > step for step in steps)
    return Verdict_Place(Placement(lane=lane, expires=0, newest_only=False))
