"""Compares what a tracer recorded with what the programs know.

`load` turns the programs' logs into a `Truth`: calls with their exact byte ranges, and which connection's which end
each was on. `compare` maps the calls to recorded events and judges the recorded edges. It knows nothing of the tracer.
"""

import bisect
import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field

MAX_PROBLEMS = 12
ANY_WORKER = -1  # the number of a thread that the kernel made, and the program does not know


@dataclass
class Call:
    op: str  # send, recv, close, abort
    pid: int
    tid: int
    endpoint: str
    before: int
    after: int
    ranges: list  # of [start, end) in the stream; None for errors and EOF
    result: int
    error: str
    peek: bool
    eof: bool
    split: bool
    attempts: bool = False  # calls that found the socket not ready, or were broken off, may go before it
    expected: bool = True  # False: it ended before the recorder ran, or is of a kind that none can see
    local: str = ""
    remote: str = ""
    protocol: str = "tcp"
    pieces: list = field(default_factory=list)  # (start, end, event or None), filled by the mapping


@dataclass
class Truth:
    calls: list
    peers: dict  # endpoint → the other end's endpoint
    problems: list  # what is wrong with the logs themselves


def load(directory, begun_before=True):
    """`begun_before`: whether the tracer sees calls that it did not see begin."""
    records = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(".jsonl"):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                # (All lines at once: where the machine is emulated, one by one takes three times as long.)
                records.extend(json.loads(f"[{file.read().rstrip().replace(chr(10), ',')}]"))
    problems = []
    ends = {r["endpoint"]: r for r in records if r["op"] == "endpoint"}
    names = {r["endpoint"]: r["name"] for r in records if r["op"] == "name"}
    peers = _pair(ends, names, problems)
    recorded_from = max((r["time"] for r in records if r["op"] == "recorded_from"), default=0)
    layouts = {peers.get(r["endpoint"]): r["runs"] for r in records if r["op"] == "layout"}
    calls, short = [], []
    for record in records:
        if record["op"] not in ("send", "recv", "close", "abort"):
            continue
        call = Call(record["op"], record["pid"], record["tid"], record["endpoint"], record["before"], record["after"],
                    record["ranges"], record.get("result", 0), record.get("error"), record.get("peek", False),
                    record.get("eof", False), record.get("split", False), record.get("attempts", False),
                    record["after" if begun_before else "before"] >= recorded_from and not record.get("unseen", False),
                    ends[record["endpoint"]]["local"], ends[record["endpoint"]]["remote"],
                    ends[record["endpoint"]].get("protocol", "tcp"))
        if "writer" in record:
            call.ranges = _stream_ranges(layouts.get(call.endpoint, []), record["writer"], *record["span"])
        if "bytes" in record:
            short.append((call, bytes.fromhex(record["bytes"])))
        calls.append(call)
    calls.sort(key=lambda call: call.before)
    _place_short_reads(calls, short, problems)
    _check_tiling(calls, peers, problems)
    return Truth(calls, peers, problems)


def _pair(ends, names, problems):
    """Which endpoints are the two ends of one connection: by name, else by mirrored addresses, in order of time."""
    peers, by_key = {}, defaultdict(list)
    for end in sorted(ends.values(), key=lambda end: end["time"]):
        name = names.get(end["endpoint"])
        key = ("name", name) if name else (end["local"], end["remote"])
        by_key[key].append(end["endpoint"])
    for key, group in by_key.items():
        others = by_key.get((key[1], key[0]), [])
        if key[0] == "name":
            group, others = group[:1], group[1:]
            pairs = [(group[0], other) for other in others]
            pairs += [(b, a) for a, b in pairs]
        else:
            pairs = list(zip(group, others))
        if len(group) != len(others):
            problems.append(f"truth: {key} has {len(group)} ends here and {len(others)} there")
        peers.update(pairs)
    return peers


def _stream_ranges(runs, writer, start, end):
    """Where bytes start..end of one racing writer stand in the stream that it shares."""
    out, own, position = [], 0, 0
    for who, length in runs:
        if who == writer:
            low, high = max(start, own), min(end, own + length)
            if low < high:
                out.append([position + low - own, position + high - own])
            own += length
        position += length
    return out


def _place_short_reads(calls, short, problems):
    """Racing reads too short to say where they stand fill the holes that the others leave, by their content."""
    from log import counted

    for endpoint in {call.endpoint for call, _ in short}:
        known = sorted(r for c in calls if c.endpoint == endpoint and c.op == "recv" and c.ranges for r in c.ranges)
        waiting = [(call, data) for call, data in short if call.endpoint == endpoint]
        position = 0
        for start, end in known + [[float("inf"), 0]]:
            while position < start and waiting:
                content = counted(position // 8, 3)[position % 8:]
                fits = [item for item in waiting if content.startswith(item[1])]
                if len(fits) != 1:
                    break
                call, data = fits[0]
                call.ranges = [[position, position + len(data)]]
                position += len(data)
                waiting.remove(fits[0])
            position = end
        problems.extend(f"truth: {len(data)} bytes of {endpoint} cannot be placed" for _, data in waiting)


def _check_tiling(calls, peers, problems):
    """The logs must agree with themselves: both ends' calls tile the stream from 0, to the same end or less."""
    tiles = defaultdict(list)
    for call in calls:
        if call.op in ("send", "recv") and call.ranges and not call.peek:
            tiles[call.endpoint, call.op].extend(call.ranges)
    ends = {}
    for key, ranges in tiles.items():
        position = 0
        for start, end in sorted(ranges):
            if start != position:
                problems.append(f"truth: {key[1]} ranges of {key[0]} jump from {position} to {start}")
                break
            position = end
        ends[key] = position
    for (endpoint, op), end in ends.items():
        if op == "recv" and end > ends.get((peers.get(endpoint), "send"), 0):
            problems.append(f"truth: {endpoint} received more than was sent")


# Comparison.


@dataclass
class Report:
    calls: int = 0
    true_edges: int = 0
    must_edges: int = 0
    wrong_must: int = 0
    wrong_may: int = 0
    found: int = 0
    found_must: int = 0
    problems: list = field(default_factory=list)

    @property
    def precision(self):
        return 1.0 if self.must_edges == 0 else 1 - self.wrong_must / self.must_edges

    @property
    def recall(self):
        return 1.0 if self.true_edges == 0 else self.found / self.true_edges

    @property
    def must_share(self):
        return 1.0 if self.true_edges == 0 else self.found_must / self.true_edges


class _Problems:
    """Problems by kind: the first few of each in words, the rest counted."""

    def __init__(self):
        self.counts, self.texts = Counter(), defaultdict(list)

    def add(self, kind, text):
        self.counts[kind] += 1
        if len(self.texts[kind]) < 3:
            self.texts[kind].append(text)

    def forget(self, kind):
        self.counts.pop(kind, None)

    def lines(self):
        for kind, count in self.counts.items():
            for text in self.texts[kind]:
                yield f"{kind}: {text}"
            if count > len(self.texts[kind]):
                yield f"{kind}: … {count} in all"


def compare(truth, graph, racing=False, must_share=1.0, blind=False):
    """Judges a graph. `racing`: the stream offsets a tracer sees of racing calls need not be theirs, and how much
    of the truth is must is up to it; elsewhere at least `must_share` of it is. `blind`: nothing that tells where bytes
    went can be seen, so that offsets are not demanded, nor that the truth is found."""
    report, problems = Report(), _Problems()
    report.calls = sum(call.expected for call in truth.calls)
    for text in truth.problems:
        problems.add("logs", text)
    events = {event["id"]: event for event in graph["events"]}
    pids = {call.pid for call in truth.calls}
    racing = racing or blind
    # What the programs tell each other on the side, by a protocol that they log nothing of, is not judged.
    spoken = {call.protocol for call in truth.calls}
    ours = [event for event in graph["events"] if event["pid"] in pids and (event.get("protocol") or "tcp") in spoken]
    mapped = _map(truth, [event for event in ours if event["tid"] is not None], racing, problems)
    _judge_edges(truth, graph["edges"], events, mapped, {event["id"] for event in ours}, report, problems)
    _check_program_order(graph, mapped, problems)
    _check_paths(graph, events, mapped, problems)
    if blind:
        problems.forget("not found")
    if not racing and report.must_share < must_share:
        problems.add("must share", f"{report.must_share:.2%} of the true edges are must, expected {must_share:.0%}")
    report.problems = list(problems.lines())
    return report


def _map(truth, events, racing, problems):
    """Finds each call's events: the same thread, connection and op, an end between the call's begin and end."""
    by_place = defaultdict(list)
    own = {(call.pid, call.tid) for call in truth.calls}
    for event in sorted(events, key=lambda e: (e["time_ns"], e["id"])):
        kind = "end" if event["op"] in ("close", "abort") else event["op"]
        # A thread without calls of its own, where some were made by threads that the program does not know.
        unknown = (event["pid"], ANY_WORKER) in own and (event["pid"], event["tid"]) not in own
        tid = ANY_WORKER if unknown else event["tid"]
        by_place[event["pid"], tid, _plain(event["local"]), _plain(event["remote"]), kind].append(event)
    calls_by_place = defaultdict(list)
    for call in truth.calls:
        kind = "end" if call.op in ("close", "abort") else call.op
        calls_by_place[call.pid, call.tid, call.local, call.remote, kind].append(call)
    # What is done for io_uring on the side interrupts whatever call its thread is in; the kernel makes that call again.
    interrupted = any(call.attempts for call in truth.calls)
    mapped = {}
    for place, calls in calls_by_place.items():
        events = by_place.pop(place, [])
        if any(call.attempts for call in calls):
            events = [event for event in events if event["error"] != "EAGAIN"]
        if interrupted:
            events = [event for event in events if event["error"] != "EINTR"]
        found, extra = _within(calls, events)
        for call, group in zip(calls, found):
            _check_call(call, group, racing, problems)
            position = iter(_parts(call, group))
            call.pieces = list(position)
            mapped.update((event["id"], call) for event in group)
        if place[4] != "end":  # a descriptor's last close may find the connection ended already
            for event in extra:
                problems.add("extra", f"{_event(event)}: no call of its thread ended then")
    for place, rest in by_place.items():
        if place[4] in ("send", "recv"):
            for event in rest:
                problems.add("extra", f"{_event(event)}: its thread made no such call on that connection")
    return mapped


def _plain(address):
    if address and address.startswith("[::ffff:") and "." in address:
        return address[len("[::ffff:"):].replace("]", "")
    return address


def _within(calls, events):
    """Shares out events, sorted by time, to calls, sorted by time; what is in no call is extra.

    Calls with the very same times are one system call's: they have an event each."""
    found, extra, position = [], [], 0
    for call, after in zip(calls, calls[1:] + [None]):
        group = []
        in_batch = after is not None and (call.before, call.after) == (after.before, after.after)
        while position < len(events) and events[position]["time_ns"] <= call.after and not (in_batch and group):
            (group if events[position]["time_ns"] >= call.before else extra).append(events[position])
            position += 1
        found.append(group)
    return found, extra + events[position:]


def _check_call(call, group, racing, problems):
    if not group:
        if call.expected and call.op in ("send", "recv"):
            problems.add("missing", f"{_call(call)} is not in the recording")
        return
    if len(group) > 1 and not call.split:
        problems.add("extra", f"{_call(call)} has {len(group)} events: {', '.join(map(_event, group))}")
    if call.op in ("close", "abort"):
        if group[0]["op"] != call.op:
            problems.add("differs", f"{_call(call)} is recorded as {_event(group[0])}")
        return
    result = sum(event["result"] for event in group)
    error = group[-1]["error"]
    if (result, error) != (call.result, call.error):
        problems.add("differs", f"{_call(call)} is recorded as {', '.join(map(_event, group))}")
    for event in group:
        if not event["begin_ns"] <= event["time_ns"]:
            problems.add("differs", f"{_event(event)} begins after its end")
        if event.get("protocol", call.protocol) != call.protocol:
            problems.add("differs", f"{_event(event)} is {event['protocol']}")
        for flag in ("peek", "eof"):
            if flag in event and bool(event[flag]) != getattr(call, flag):
                problems.add("differs", f"{_call(call)} has {flag} = {event[flag]}")
    if racing or call.ranges is None or call.protocol == "udp" or call.protocol == "unix_dgram":
        return  # a datagram has no place in a stream
    for start, end, event in _parts(call, group):
        if event["stream_start"] is None or event["stream_end"] is None:
            problems.add("offsets", f"{_event(event)} has none, true is {start}..{end}")
        elif (event["stream_start"], event["stream_end"]) != (start, end):
            problems.add("offsets", f"{_event(event)}, true is {start}..{end}")


def _parts(call, group):
    """A call's ranges shared out to its events: (start, end, event), event None where there is none."""
    if call.ranges is None:
        return [(None, None, group[0] if group else None)]
    if len(group) < 2:
        return [(start, end, group[0] if group else None) for start, end in call.ranges]
    start, out = call.ranges[0][0], []
    for event in group:
        out.append((start, start + event["result"], event))
        start += event["result"]
    return out


def true_edges(truth):
    """Yields (cause, its event, effect, its event, kind): sends to the receives of their bytes, ends to EOF and error.

    What ended before the recorder ran causes nothing it could know."""
    sends, receives, ends = defaultdict(list), defaultdict(list), {}
    for call in truth.calls:
        if call.op == "send" and call.ranges:
            sends[call.endpoint].extend((start, end, call, event) for start, end, event in call.pieces)
        elif call.op == "recv":
            receives[truth.peers.get(call.endpoint)].append(call)
        elif call.op in ("close", "abort"):
            ends.setdefault(call.endpoint, call)
    for endpoint, calls in receives.items():
        parts = sorted(sends[endpoint], key=lambda part: part[:2])
        starts = [part[0] for part in parts]
        end = ends.get(endpoint)
        reset_seen = False
        for call in calls:
            if call.eof or call.error == "ECONNRESET":
                if call.eof and end and end.op == "close" or call.error and not reset_seen:
                    reset_seen = reset_seen or bool(call.error)
                    if end and end.expected and call.expected:
                        yield end, end.pieces[0][2], call, call.pieces[0][2], "close"
                continue
            if not call.ranges or not call.expected:
                continue
            for low, high, event in call.pieces:
                index = max(0, bisect.bisect_right(starts, low) - 1)
                while index < len(parts) and parts[index][0] < high:
                    start, stop, send, send_event = parts[index]
                    if stop > low and start < stop and send.expected:
                        yield send, send_event, call, event, "bytes"
                    index += 1


def _judge_edges(truth, edges, events, mapped, ours, report, problems):
    claims = {}  # (from, to) → proof, between a begin and an end
    for edge in edges:
        if edge["kind"] == "bytes" and (edge["from"] in ours or edge["to"] in ours):
            key = (edge["from"], edge["to"])
            if (edge["from_side"], edge["to_side"]) != ("begin", "end"):
                key = (edge["from"], edge["from_side"], edge["to"], edge["to_side"])
            if claims.get(key) != "must":
                claims[key] = edge["proof"]
    lanes = _Lanes(edges, events, mapped)
    true, seen = set(), set()
    for cause, cause_event, effect, effect_event, kind in true_edges(truth):
        name = (id(cause), cause_event and cause_event["id"], id(effect), effect_event and effect_event["id"])
        if name in seen:
            continue
        seen.add(name)
        report.true_edges += 1
        proof = None
        if cause_event and effect_event:
            key = (cause_event["id"], effect_event["id"])
            true.add(key)
            proof = claims.get(key) or (lanes.proof(*key) if kind == "close" else None)
            if kind == "close" and key not in claims and proof == "must":
                report.must_edges += 1
        if proof is None:
            problems.add("not found", f"{_call(cause)} → {_call(effect)}")
        else:
            report.found += 1
            report.found_must += proof == "must"
    claims.update(_end_claims(truth, edges, mapped, true, claims))
    for key, proof in claims.items():
        report.must_edges += proof == "must"
        if key not in true:
            report.wrong_must += proof == "must"
            report.wrong_may += proof == "may"
            if proof == "must":
                problems.add("wrong must", " → ".join(
                    _event(events[k]) if k in events else str(k) for k in key))


def _end_claims(truth, edges, mapped, true, claims):
    """Direct edges from a close or abort to a receive or send that do not hold: the end must be the peer's, and
    before. (Those that do hold were judged as true edges.)"""
    out = {}
    for edge in edges:
        cause, effect = mapped.get(edge["from"]), mapped.get(edge["to"])
        if edge["kind"] != "close" or cause is None or effect is None or (edge["from"], edge["to"]) in true:
            continue
        of_peer = truth.peers.get(cause.endpoint) == effect.endpoint
        if not (of_peer and cause.before <= effect.after and effect.error):
            out[edge["from"], edge["to"]] = edge["proof"]
    return out


class _Lanes:
    """Paths from the end of a connection to the call that saw it, through the kernel's own events only."""

    def __init__(self, edges, events, mapped):
        self.next = defaultdict(list)
        self.events = events
        ends = {number for number, call in mapped.items() if call.op in ("close", "abort")}
        for edge in edges:
            start = events.get(edge["from"])
            if start and (edge["from"] in ends or start["tid"] is None):
                self.next[edge["from"], edge["from_side"]].append(
                    (edge["to"], edge["to_side"], edge["proof"]))

    def proof(self, cause, effect):
        for proofs in (("must",), ("must", "may")):
            todo, seen = [(cause, "begin")], set()
            while todo:
                node = todo.pop()
                if node in seen:
                    continue
                seen.add(node)
                number, side = node
                if node == (effect, "end"):
                    return proofs[-1]
                if number != cause and self.events[number]["tid"] is not None:
                    continue
                if side == "begin":
                    todo.append((number, "end"))
                todo.extend((to, to_side) for to, to_side, proof in self.next[node] if proof in proofs)
        return None


def _check_program_order(graph, mapped, problems):
    """Every event of a thread that made calls is joined to its next one, and to nothing else by its own order."""
    joined = {(e["from"], e["to"]) for e in graph["edges"] if e["kind"] == "program" and e["proof"] == "must"
              and (e["from_side"], e["to_side"]) == ("end", "begin")}
    threads = {(call.pid, call.tid) for call in mapped.values()}
    events = defaultdict(list)
    for event in graph["events"]:
        if (event["pid"], event["tid"]) in threads:
            events[event["pid"], event["tid"]].append(event)
    good = set()
    for group in events.values():
        group.sort(key=lambda e: (e["time_ns"], e["id"]))
        for first, second in zip(group, group[1:]):
            good.add((first["id"], second["id"]))
            if (first["id"], second["id"]) not in joined and first["time_ns"] != second["time_ns"]:
                problems.add("program order", f"{_event(first)} is not joined to {_event(second)}, its thread's next")
    own = {event["id"]: event["time_ns"] for group in events.values() for event in group}
    for first, second in joined - good:
        if first in own and second in own and own[first] != own[second]:
            problems.add("program order", f"events {first} and {second} are joined, but are not one thread's next")


def _check_paths(graph, events, mapped, problems):
    """No chain of must edges, of whatever kinds, may lead from a call to one that had returned before it began."""
    effects, waiting = defaultdict(list), Counter()
    for number in events:
        effects[number, "begin"].append((number, "end"))
        waiting[number, "end"] += 1
    for edge in graph["edges"]:
        if edge["from"] not in events or edge["to"] not in events:
            problems.add("edges", f"an edge joins {edge['from']} and {edge['to']}, not both events")
        elif edge["proof"] == "must" and edge["kind"] != "interval":
            effects[edge["from"], edge["from_side"]].append((edge["to"], edge["to_side"]))
            waiting[edge["to"], edge["to_side"]] += 1
    latest = {(number, "begin"): (call.before, call) for number, call in mapped.items()}
    ready = [(number, side) for number in events for side in ("begin", "end") if not waiting[number, side]]
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        mine = latest.pop(node, None)
        call = mapped.get(node[0])
        if mine and call and node[1] == "end" and mine[0] > call.after:
            problems.add("against time", f"must edges lead from {_call(mine[1])} to {_call(call)}, over before it began")
            mine = None
        for effect in effects[node]:
            if mine and (effect not in latest or latest[effect][0] < mine[0]):
                latest[effect] = mine
            waiting[effect] -= 1
            if not waiting[effect]:
                ready.append(effect)
    if done < 2 * len(events):
        problems.add("cycle", f"must edges form a cycle among {2 * len(events) - done} begins and ends")


def _call(call):
    ranges = "" if not call.ranges else " bytes " + ",".join(f"{a}..{b}" for a, b in call.ranges[:3])
    marks = (" peek" if call.peek else "") + (" eof" if call.eof else "") + (f" {call.error}" if call.error else "")
    return (f"{call.op} of {call.pid}/{call.tid} {call.local}→{call.remote}{ranges}{marks}"
            f" [{call.before}..{call.after}]")


def _event(event):
    error = f" {event['error']}" if event["error"] else ""
    return (f"event {event['id']} {event['op']} of {event['pid']}/{event['tid']} {event['local']}→{event['remote']}"
            f" bytes {event['stream_start']}..{event['stream_end']} = {event['result']}{error} at {event['time_ns']}")
