"""The real Zenoh client, driven a line at a time: a JSON object in, a JSON object out.

    client.py ENDPOINT

Binary values travel in base64. A timestamp goes in as nanoseconds since 1970 and comes back as
Zenoh writes it (`NTP64/ID`), which is exact.
"""

import base64
import json
import sys
import time

import zenoh

# The id in the timestamps that a test makes up: no router has it.
STAMP_ID = b"\x77"


def text(raw):
    return base64.b64encode(raw.to_bytes()).decode()


def raw(encoded):
    return None if encoded is None else zenoh.ZBytes(base64.b64decode(encoded))


def stamp(nanos):
    if nanos is None:
        return None
    whole, rest = divmod(nanos, 1_000_000_000)
    return zenoh.Timestamp(zenoh.NTP64(whole, rest), STAMP_ID)


def shown(sample):
    return {
        "key": str(sample.key_expr),
        "kind": "put" if sample.kind == zenoh.SampleKind.PUT else "delete",
        "value": text(sample.payload),
        "encoding": str(sample.encoding),
        "attachment": None if sample.attachment is None else text(sample.attachment),
        "timestamp": None if sample.timestamp is None else str(sample.timestamp),
    }


def receipt(replies, admission=None):
    """What the first that acknowledges it answers (with this admission, if one is named), else why one does
    not; nothing if none says."""
    refusal = {}
    for reply in replies:
        if reply.ok is None:
            refusal = {"error": reply.err.payload.to_string()}
            continue
        answer = json.loads(reply.ok.payload.to_bytes())
        if admission in (None, answer["admission"]):
            return answer
    return refusal


class Driver:
    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.session = self.open()
        self.subscribers = []
        self.samples = []

    def open(self):
        config = zenoh.Config()
        config.insert_json5("mode", '"client"')
        config.insert_json5("connect/endpoints", json.dumps([self.endpoint]))
        config.insert_json5("scouting/multicast/enabled", "false")
        return zenoh.open(config)

    def reconnect(self, op):
        """A new session, with another router if one is named; the old one's router may have died."""
        self.endpoint = op.get("endpoint", self.endpoint)
        self.session.close()
        self.session = self.open()
        return {}

    def put(self, op):
        given = stamp(op.get("at"))
        # Block: a test that sends ten thousand puts at once wants to know what becomes of them. Who does
        # not wait loses nothing of a few at a time, and is not held up by a line behind the router.
        control = zenoh.CongestionControl.DROP if op.get("drop") else zenoh.CongestionControl.BLOCK
        self.session.put(
            op["key"],
            raw(op["value"]),
            encoding=op.get("encoding"),
            attachment=raw(op.get("attachment")),
            timestamp=given,
            congestion_control=control,
        )
        return {"timestamp": None if given is None else str(given)}

    def puts(self, op):
        return {"timestamps": [self.put(each)["timestamp"] for each in op["puts"]]}

    def delete(self, op):
        given = stamp(op.get("at"))
        self.session.delete(op["key"], attachment=raw(op.get("attachment")), timestamp=given)
        return {"timestamp": None if given is None else str(given)}

    def acks(self, op):
        """Acknowledged operations, a few in flight, up to the first that is not acknowledged."""
        receipts = []
        for first in range(0, len(op["ops"]), op["width"]):
            ops = op["ops"][first : first + op["width"]]
            asked = [self.ask(each) for each in ops]
            answers = [receipt(replies, each.get("admission")) for each, replies in zip(ops, asked)]
            receipts += answers
            if not all("admission" in answer for answer in answers):
                break
        return {"receipts": receipts}

    def get(self, op):
        found, errors = [], []
        for reply in self.ask(op):
            if reply.ok is not None:
                found.append(shown(reply.ok))
            else:
                errors.append(reply.err.payload.to_string())
        return {"samples": found, "errors": errors}

    def ask(self, op):
        targets = {"all": zenoh.QueryTarget.ALL, "best": zenoh.QueryTarget.BEST_MATCHING}
        modes = {"auto": zenoh.ConsolidationMode.AUTO, "none": zenoh.ConsolidationMode.NONE}
        return self.session.get(
            op["selector"],
            target=targets[op.get("target", "best")],
            consolidation=modes[op.get("consolidation", "auto")],
            payload=raw(op.get("value")),
            encoding=op.get("encoding"),
            attachment=raw(op.get("attachment")),
            timeout=op.get("timeout", 20),
        )

    def subscribe(self, op):
        take = self.samples.append
        self.subscribers.append(self.session.declare_subscriber(op["key"], take))
        return {}

    def received(self, op):
        """What subscribers got, once it is at least `count` samples or the time is over."""
        end = time.monotonic() + op.get("timeout", 20)
        while len(self.samples) < op["count"] and time.monotonic() < end:
            time.sleep(0.01)
        return {"samples": [shown(sample) for sample in list(self.samples)]}


def main():
    driver = Driver(sys.argv[1])
    print(json.dumps({"zid": str(driver.session.info.zid())}), flush=True)
    for line in sys.stdin:
        op = json.loads(line)
        try:
            answer = getattr(driver, op["op"])(op)
        except Exception as error:  # told to the test, which decides what it means
            answer = {"exception": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    driver.session.close()


main()
