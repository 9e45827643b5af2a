"""A pretend tracer that knows everything: it turns the programs' logs into the perfect graph, and into graphs with
one flaw each. The self-test shows that the comparison accepts the first and finds every flaw."""

import copy

from compare import true_edges


def perfect(truth):
    """The graph that a tracer without fault would write: one event for each call, its end half way through."""
    events, edges, last, time = [], [], {}, {}
    for call in sorted((c for c in truth.calls if c.expected), key=lambda call: (call.before + call.after) // 2):
        thread = (call.pid, call.tid)
        time[thread] = max((call.before + call.after) // 2, time.get(thread, 0) + 1)  # a batch has one middle
        start, end = (call.ranges[0][0], call.ranges[-1][1]) if call.ranges else (None, None)
        if call.protocol == "udp":
            start, end = None, None  # a datagram has no place in a stream
        event = {"id": len(events), "host": "oracle", "begin_ns": call.before,
                 "time_ns": time[thread], "pid": call.pid, "tid": call.tid, "comm": "python3",
                 "op": call.op, "protocol": call.protocol, "local": call.local, "remote": call.remote, "stream_start": start,
                 "stream_end": end, "result": call.result, "error": call.error, "eof": call.eof, "peek": call.peek}
        events.append(event)
        call.pieces = [(a, b, event) for a, b in call.ranges or [(None, None)]]
        previous = last.get(thread)
        if previous is not None:
            edges.append(_edge(previous, "end", event["id"], "begin", "program"))
        last[thread] = event["id"]
    joined = {(cause["id"], effect["id"], kind) for _, cause, _, effect, kind in true_edges(truth)}
    edges.extend(_edge(cause, "begin", effect, "end", kind) for cause, effect, kind in sorted(joined))
    return {"events": events, "edges": edges}


def _edge(start, start_side, end, end_side, kind, proof="must"):
    return {"from": start, "from_side": start_side, "to": end, "to_side": end_side, "kind": kind, "proof": proof}


def _middle(items):
    items = list(items)
    return items[len(items) // 2] if items else None


def _bytes_edge(graph):
    return _middle(edge for edge in graph["edges"] if edge["kind"] == "bytes")


def _without(graph, edge):
    graph["edges"].remove(edge)


def drop_edge(graph):
    _without(graph, _bytes_edge(graph))


def drop_end_edge(graph):
    edge = _middle(edge for edge in graph["edges"] if edge["kind"] == "close")
    if edge is None:
        return "no EOF and no reset"
    _without(graph, edge)


def drop_program_edge(graph):
    _without(graph, _middle(edge for edge in graph["edges"] if edge["kind"] == "program"))


def wrong_must(graph):
    """The right send, the next receive of the same thread."""
    edge = _bytes_edge(graph)
    true = {(e["from"], e["to"]) for e in graph["edges"]}
    place = ("pid", "tid", "local", "remote", "op")
    receive = graph["events"][edge["to"]]
    for other in graph["events"][edge["to"] + 1:]:
        if all(other[key] == receive[key] for key in place) and (edge["from"], other["id"]) not in true:
            graph["edges"].append({**edge, "to": other["id"]})
            return None
    return "no receive that the bytes did not reach"


def wrong_sides(graph):
    _bytes_edge(graph).update(from_side="end", to_side="begin")


def against_time(graph):
    """Not a bytes edge, so that only the time of the two calls can tell."""
    first, last = graph["events"][0], graph["events"][-1]
    graph["edges"].append(_edge(last["id"], "begin", first["id"], "end", "connection"))


def cycle(graph):
    edge = _bytes_edge(graph)
    graph["edges"].append(_edge(edge["to"], "end", edge["from"], "begin", "task"))


def all_may(graph):
    """Nothing wrong, nothing missing, nothing proven."""
    for edge in graph["edges"]:
        if edge["kind"] == "bytes":
            edge["proof"] = "may"


def drop_event(graph):
    event = _middle(e["id"] for e in graph["events"] if e["op"] == "recv" and not e["error"])
    graph["events"] = [e for e in graph["events"] if e["id"] != event]
    graph["edges"] = [e for e in graph["edges"] if event not in (e["from"], e["to"])]


def double_event(graph):
    event = copy.copy(_middle(e for e in graph["events"] if e["op"] == "send"))
    event["id"] = len(graph["events"])
    graph["events"].append(event)


def shift_range(graph):
    event = graph["events"][_bytes_edge(graph)["from"]]
    if event["stream_start"] is None:
        return "datagrams have no offsets"
    event["stream_start"] += 1
    event["stream_end"] += 1
    return None


def wrong_result(graph):
    graph["events"][_bytes_edge(graph)["to"]]["result"] -= 1


def wrong_error(graph):
    graph["events"][_bytes_edge(graph)["to"]]["error"] = "EAGAIN"


def wrong_thread(graph):
    graph["events"][_bytes_edge(graph)["to"]]["tid"] += 1_000_000


def wrong_time(graph):
    graph["events"][_bytes_edge(graph)["to"]]["time_ns"] += 3_600_000_000_000


def wrong_address(graph):
    graph["events"][_bytes_edge(graph)["from"]]["local"] = "127.0.0.1:0"


# Flaw → the kinds of problem that may report it.
FLAWS = {
    drop_edge: {"not found"},
    drop_end_edge: {"not found"},
    drop_program_edge: {"program order"},
    wrong_must: {"wrong must"},
    wrong_sides: {"wrong must"},
    against_time: {"against time", "cycle"},
    cycle: {"cycle"},
    all_may: {"must share"},
    drop_event: {"missing"},
    double_event: {"extra", "differs"},  # of a call that may be several events, the sum tells
    shift_range: {"offsets"},
    wrong_result: {"differs"},
    wrong_error: {"differs", "missing"},  # a request may fail before it succeeds
    wrong_thread: {"missing"},
    wrong_time: {"missing"},
    wrong_address: {"missing"},
}

# What cannot be demanded of calls that race: their reported offsets, and that all be must.
NOT_WHERE_RACING = {shift_range, all_may}
