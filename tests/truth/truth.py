#!/usr/bin/env python3
"""Runs programs that know which send's bytes reached which receive, and compares a recording of them with that.

    truth.py                                   every case, with `wherefore`
    truth.py --case fan_in --case tls          some cases
    truth.py --self-test                       without a tracer: is the comparison itself right?
    truth.py --record "mytracer -o {out} -- {cmd}" --record-all "mytracer -o {out}" --graph "mytracer-json {out}"

Exit status 0: everything right; 1: something is off; 2: the suite could not run. README.md describes the JSON.
"""

import argparse
import copy
import faulthandler
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True  # root runs this in somebody's source tree
sys.path.insert(0, HERE)

import compare  # noqa: E402
import log  # noqa: E402
import oracle  # noqa: E402

CASES = sorted(name[:-3] for name in os.listdir(os.path.join(HERE, "cases")) if name.endswith(".py"))
# An emulated machine has more, but its own limit must be longer: a case that hangs is to be named.
TIME_LIMIT_S = 55 + 5 * log.SLOWNESS
COLUMNS = ["case", "calls", "true edges", "must edges", "wrong must", "precision", "recall", "must share"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", metavar="NAME", choices=CASES, help="only this case (repeatable)")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    parser.add_argument("--self-test", action="store_true", help="compare a perfect tracer and flawed ones, no kernel")
    parser.add_argument("--json", action="store_true", help="the results as one JSON object")
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs, recordings and graphs there")
    parser.add_argument("--record", default="wherefore record -o {out} -- {cmd}",
                        help="records a command (default: %(default)s)")
    parser.add_argument("--record-all", default="wherefore record -o {out} --all",
                        help="records everything until SIGINT (default: %(default)s)")
    parser.add_argument("--graph", default="wherefore graph {out} --to json",
                        help="prints a recording's graph (default: %(default)s)")
    parser.add_argument("--ready", metavar="REGEX", help="what --record-all prints on stderr when it is recording")
    parser.add_argument("--settle", type=float, default=2.0, metavar="SECONDS",
                        help="without --ready: how long --record-all takes to start (default: %(default)s)")
    parser.add_argument("--sees-begun-only", action="store_true",
                        help="the tracer does not see calls that were under way when it started")
    parser.add_argument("--together", action="store_true",
                        help="one recording of all cases, one after the other, but for those that need their own")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--run-all", nargs="+", metavar=("FOLDER", "CASE"), help=argparse.SUPPRESS)
    return parser.parse_args()


class Failed(Exception):
    """A case could not be judged: the program, the recorder or the graph command failed."""


def run_program(name, folder):
    """Inside the recorded process: runs one case, logging into the folder."""
    log.open_in(folder)
    case(name).run()
    log.flush()
    with open(os.path.join(folder, "done"), "w", encoding="utf-8"):
        pass


def run_programs(base, *names):
    """Inside the recorded process: runs cases in turn, each in a process and a folder of its own."""
    for name in names:
        folder = os.path.join(base, name)
        os.makedirs(folder)
        child = os.fork()
        if child == 0:
            try:
                os.setpgid(0, 0)
                os.dup2(os.open(os.path.join(folder, "stderr"), os.O_WRONLY | os.O_CREAT), 2)
                faulthandler.register(signal.SIGUSR2)
                log.die_with_parent()
                run_program(name, folder)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        deadline = time.monotonic() + TIME_LIMIT_S
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGUSR2)
                time.sleep(log.SLOWNESS / 10)  # while they say where they are
                os.killpg(child, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.01)


def case(name):
    return importlib.import_module(f"cases.{name}")


def reason_to_skip(module):
    return module.needs() if hasattr(module, "needs") else None


def fill(template, **values):
    """A command template as an argument list; `{cmd}` becomes as many arguments as it has."""
    words = []
    for word in shlex.split(template):
        if word == "{cmd}":
            words.extend(values["cmd"])
        else:
            words.append(word.format(**values))
    return words


def finish(process, what, timeout_s):
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            output, errors = process.communicate(timeout=10 * log.SLOWNESS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
        raise Failed(f"{what} took more than {timeout_s} s: {tail(errors)}") from None
    return output, errors


def tail(errors):
    text = errors.decode(errors="replace") if isinstance(errors, bytes) else errors or ""
    return " | ".join(line.strip()[:200] for line in text.strip().splitlines()[-6:])


def start(words, **kwargs):
    try:
        return subprocess.Popen(words, **kwargs)
    except OSError as error:
        raise Failed(f"{words[0]}: {error.strerror}") from None


def itself(*words):
    return [sys.executable, os.path.abspath(__file__), *words]


def record(name, module, folder, options):
    """Runs a case under the recorder (or, without options, alone)."""
    command = itself("--run", name, folder)
    out = os.path.join(folder, "recording")
    if getattr(module, "OLDER", False):
        running = start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            record_from_the_middle(running, folder, out, options)
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait()
    else:
        errors = run_to_end(fill(options.record, out=out, cmd=command) if options else command, TIME_LIMIT_S)
        if not os.path.exists(os.path.join(folder, "done")):
            raise Failed(f"the program did not end well: {tail(errors)}")
    return out


def run_to_end(words, limit_s):
    """Runs a command; what it said on stderr."""
    process = start(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = finish(process, "the program", limit_s)
    if process.returncode != 0:
        raise Failed(f"{shlex.join(words[:3])}… exited with {process.returncode}: {tail(errors)}")
    return errors


def record_from_the_middle(program, folder, out, options):
    """The program runs first; when its connections stand, the recorder is started, then it goes on."""
    deadline = time.monotonic() + TIME_LIMIT_S
    while not os.path.exists(os.path.join(folder, "ready")):
        if program.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"the program did not get ready: {tail(program.stderr.read())}")
        time.sleep(0.02)
    errors_path = os.path.join(folder, "recorder-stderr")
    recorder = None
    try:
        if options:
            with open(errors_path, "wb") as errors:
                recorder = start(fill(options.record_all, out=out, cmd=[], pid=program.pid),
                                 stdout=subprocess.DEVNULL, stderr=errors)
            await_recorder(recorder, errors_path, options)
        with open(os.path.join(folder, "go"), "w", encoding="utf-8"):
            pass
        _, errors = finish(program, "the program", TIME_LIMIT_S)
        if not os.path.exists(os.path.join(folder, "done")):
            raise Failed(f"the program did not end well: {tail(errors)}")
    finally:
        if recorder is not None:
            recorder.send_signal(signal.SIGINT)
            try:
                recorder.wait(TIME_LIMIT_S)
            except subprocess.TimeoutExpired:
                recorder.kill()
                recorder.wait()
                raise Failed(f"the recorder did not end within {TIME_LIMIT_S} s of SIGINT") from None
    if recorder is not None and recorder.returncode != 0:
        with open(errors_path, "rb") as file:
            raise Failed(f"the recorder exited with {recorder.returncode}: {tail(file.read())}")


def await_recorder(recorder, errors_path, options):
    deadline = time.monotonic() + (TIME_LIMIT_S if options.ready else options.settle)
    while time.monotonic() < deadline:
        if recorder.poll() is not None:
            break
        if options.ready:
            with open(errors_path, encoding="utf-8", errors="replace") as file:
                if re.search(options.ready, file.read()):
                    return
        time.sleep(0.02)
    if recorder.poll() is not None:
        with open(errors_path, "rb") as file:
            raise Failed(f"the recorder ended at once with {recorder.returncode}: {tail(file.read())}")
    if options.ready:
        raise Failed(f"the recorder did not print /{options.ready}/ in time")


def graph_of(out, folder, options):
    words = fill(options.graph, out=out, cmd=[])
    path = os.path.join(folder, "graph.json")
    with open(path, "wb") as file:
        process = start(words, stdout=file, stderr=subprocess.PIPE)
        _, errors = finish(process, "the graph command", TIME_LIMIT_S)
    if process.returncode != 0:
        raise Failed(f"{shlex.join(words)} exited with {process.returncode}: {tail(errors)}")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise Failed(f"the graph is not JSON: {error}") from None


def judge(name, folder, options):
    """One case: (report, reason it was skipped, problems)."""
    module = case(name)
    if reason := reason_to_skip(module):
        return None, reason, []
    out = record(name, module, folder, options)
    return compared(module, compare.load(folder, not options.sees_begun_only), graph_of(out, folder, options))


def compared(module, truth, graph):
    report = compare.compare(truth, graph, getattr(module, "RACING", False), getattr(module, "MUST_SHARE", 1.0),
                             getattr(module, "BLIND", False))
    return report, None, report.problems


def judge_together(names, options):
    """Those of the cases that one recording can hold, as by `judge`; the others are left out."""
    modules = {name: case(name) for name in names if not getattr(case(name), "OLDER", False)}
    reasons = {name: reason_to_skip(module) for name, module in modules.items()}
    results = {name: (None, reason, []) for name, reason in reasons.items() if reason}
    names = [name for name, reason in reasons.items() if not reason]
    with tempfile.TemporaryDirectory(prefix="truth-") as base:
        out = os.path.join(base, "recording")
        try:
            command = itself("--run-all", base, *names)
            errors = run_to_end(fill(options.record, out=out, cmd=command), TIME_LIMIT_S * len(names))
            parts = parts_of(graph_of(out, base, options), base, names)
        except Failed as error:
            return results | {name: (None, None, [str(error)]) for name in names}
        losses = [line for line in errors.decode(errors="replace").splitlines() if line.startswith("lost: ")]
        for name in names:
            folder = os.path.join(base, name)
            if os.path.exists(os.path.join(folder, "done")):
                report, reason, problems = compared(modules[name], compare.load(folder), parts[name])
                results[name] = report, reason, problems and problems + losses
            else:
                results[name] = None, None, [f"the program did not end well:\n{said_in(folder)}"]
    return results


def said_in(folder):
    """The end of what a case that was run with others said."""
    try:
        with open(os.path.join(folder, "stderr"), encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:]
    except FileNotFoundError:
        return "it was not started"


def parts_of(graph, base, names):
    """What a recording of several cases has of each: the events of the processes that have logged in its folder."""
    logs = {name: os.listdir(os.path.join(base, name)) for name in names}
    case_of = {int(log[:-6]): name for name in names for log in logs[name] if log.endswith(".jsonl")}
    parts = {name: {"events": [], "edges": []} for name in names}
    of = {}
    for event in graph["events"]:
        if name := case_of.get(event["pid"]):
            parts[name]["events"].append(event)
            of[event["id"]] = name
    for edge in graph["edges"]:
        name = of.get(edge["from"])
        if name and of.get(edge["to"]) == name:
            parts[name]["edges"].append(edge)
    return parts


def self_test(name, folder):
    """One case without a recorder: the perfect graph is accepted, each flaw is found."""
    module = case(name)
    if reason := reason_to_skip(module):
        return None, reason, []
    record(name, module, folder, None)
    truth = compare.load(folder)
    racing = getattr(module, "RACING", False)
    graph = oracle.perfect(truth)
    report = compare.compare(truth, graph, racing)
    problems = [f"the perfect graph is rejected: {text}" for text in report.problems]
    if len(truth.calls) > 20_000:
        return report, None, problems  # once is enough of this one
    for flaw, kinds in oracle.FLAWS.items():
        if racing and flaw in oracle.NOT_WHERE_RACING:
            continue
        flawed = copy.deepcopy(graph)
        if flaw(flawed):
            continue  # the case offers no place for it
        found = {text.split(":")[0] for text in compare.compare(truth, flawed, racing).problems}
        if not found & kinds:
            problems.append(f"{flaw.__name__} went unseen (only {sorted(found) or 'nothing'})")
    return report, None, problems


def run_case(name, options):
    base = options.keep
    if base:
        os.makedirs(base, exist_ok=True)
    holder = None if base else tempfile.TemporaryDirectory(prefix="truth-")
    folder = os.path.join(base, name) if base else holder.name
    if base:
        if os.path.isdir(folder):
            for entry in os.listdir(folder):
                os.remove(os.path.join(folder, entry))
        os.makedirs(folder, exist_ok=True)
    try:
        if options.self_test:
            return self_test(name, folder)
        return judge(name, folder, options)
    except Failed as error:
        return None, None, [str(error)]
    except (KeyError, TypeError, AttributeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return None, None, [f"the graph has not the expected shape: {error!r} at {os.path.basename(where.filename)}:"
                            f"{where.lineno}"]
    finally:
        if holder:
            holder.cleanup()


def row(name, report):
    if report is None:
        return [name] + ["-"] * 7
    return [name, str(report.calls), str(report.true_edges), str(report.must_edges), str(report.wrong_must),
            share(report.precision), share(report.recall), share(report.must_share)]


def share(value):
    """Never rounds up to 100 %."""
    return "100 %" if value == 1 else f"{min(value, 0.9999):.2%}".replace("%", " %")


def table_line(cells):
    return "  ".join([cells[0].ljust(22)] + [cell.rjust(len(title)) for cell, title in zip(cells[1:], COLUMNS[1:])])


def main():
    options = arguments()
    if options.list:
        print("\n".join(CASES))
        return 0
    if options.run:
        run_program(*options.run)
        return 0
    if options.run_all:
        run_programs(*options.run_all)
        return 0
    results, off, skipped = {}, 0, 0
    if not options.json:
        print(table_line(COLUMNS))
    names = options.case or CASES
    together = judge_together(names, options) if options.together else {}
    for name in names:
        report, skip, problems = together.get(name) or run_case(name, options)
        off += bool(problems)
        skipped += bool(skip)
        results[name] = {"skipped": skip, "problems": problems, **(asdict(report) if report else {})}
        if report:
            results[name].update(precision=report.precision, recall=report.recall, must_share=report.must_share,
                                 problems=problems)
        if not options.json:
            print(f"{name.ljust(22)}  skipped: {skip}" if skip else table_line(row(name, report)), flush=True)
            for problem in problems:
                print(f"    {problem}", flush=True)
    right = len(results) - off - skipped
    if options.json:
        print(json.dumps({"cases": results, "right": right, "off": off, "skipped": skipped}, indent=1))
    else:
        print(f"{len(results)} cases: {right} right, {off} off, {skipped} skipped")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
