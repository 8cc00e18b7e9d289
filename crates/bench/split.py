#!/usr/bin/env python3
"""Where the broker's CPU goes: stacks that `perf record` took, put into the stages of a request.

    dayfly-bench exchange --n 5000 &
    perf record -F 199 -e cpu-clock --call-graph dwarf,16384 -p "$(pgrep -P $! -x dayfly)" -o out.data
    python3 crates/bench/split.py out.data [microseconds per operation]

A stack belongs to the first stage in the list that names one of its functions.
"""
import collections
import re
import subprocess
import sys

STAGES = [
    ("mint", r"mint::|Flow>::mint"),
    ("policy", r"policy::"),
    ("events", r"ledger::"),
    ("verify", r"gate::verify"),
    ("parse: token", r"jws::Jws::parse"),
    ("parse: claims", r"intake::"),
    ("parse: form", r"http::(form|exchange|assertion)"),
    ("log and count", r"door::told"),
    ("flow", r"dayfly::(flow|lease|store)::"),
    ("HTTP and TLS", r"hyper::|axum|rustls|dayfly::(run::accept|http)"),
    ("scheduler", r"tokio::"),
]


def stage(thread, stack):
    if thread == "writer":
        return "commit"
    return next((name for name, known in STAGES if re.search(known, stack)), "other")


def main():
    data = sys.argv[1]
    cost = float(sys.argv[2]) if len(sys.argv) > 2 else None
    command = ["perf", "script", "-i", data, "--no-inline", "-F", "comm,ip,sym"]
    text = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout
    records = [record.strip().split("\n", 1) for record in text.split("\n\n")]
    records = [record for record in records if len(record) == 2]
    if not records:
        sys.exit("no stacks in " + data)
    counts = collections.Counter(stage(head.split()[0], stack) for head, stack in records)
    for name, count in counts.most_common():
        share = count / len(records)
        print(f"{name:<16}{share:6.1%}" + (f"{share * cost:9.0f} us" if cost else ""))
    print(f"{len(records)} stacks")


main()
