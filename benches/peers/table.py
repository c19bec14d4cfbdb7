#!/usr/bin/env python3
"""One table of what benches/peers.sh has measured: medians over its rounds, and ratios of them."""

import json
import statistics
import sys
from collections import defaultdict

found = defaultdict(list)
with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        row = json.loads(line)
        bench, size = row["bench"], row["size"]
        if bench.startswith("gstreamer") and row["count"] <= 300:
            for part in ("p50", "p99"):
                found[f"{bench} latency-{part}", size].append(row[part])
            continue
        way = f" {row['placement']} {row['direction']}" if "placement" in row else f" {row.get('direction', '')}"
        found[(bench + way).strip(), size].append(row["value"])
        if "cpu_us" in row:
            found[f"cpu of {(bench + way).strip()}", size].append(row["cpu_us"])


def median(name, size):
    values = found.get((name, size))
    return statistics.median(values) if values else None


def show(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


rows = []


def compare(what, ours, size, theirs, target=None, less=False):
    """One row; with `less` the smaller value is the better one."""
    mine, other = median(ours, size), median(theirs, theirs_size(theirs, size))
    ratio = None if mine is None or not other else mine / other
    verdict = ""
    if ratio is not None and target is not None:
        verdict = "met" if (ratio <= target if less else ratio >= target) else "missed"
        verdict += f" ({'<=' if less else '>='} {target})"
    rows.append((what, show(mine), theirs, show(other), "-" if ratio is None else f"{ratio:.2f}", verdict))


def theirs_size(name, size):
    return 0 if name.startswith("paced-wake-up") else size


for way in ("to-host", "from-host"):
    samples = f"samples-batch-default isolated {way}"
    compare(f"188 B {way}, samples/s", samples, 188, f"iceoryx2 {way}", 1.0)
    compare(f"188 B {way}, samples/s", samples, 188, "gstreamer-queue")
    compare(f"188 B {way}, samples/s", samples, 188, "gstreamer-shm")
    compare(f"188 B {way}, CPU us", f"cpu-batch-default isolated {way}", 188, f"cpu of iceoryx2 {way}", less=True)
compare("188 B in-process, samples/s", "samples-batch-default in-process to-host", 188, "gstreamer-queue")
for size, name in ((65536, "64 KiB"), (1382400, "720p"), (3110400, "1080p")):
    here = "large-in-process in-process to-host"
    compare(f"{name} in-process, samples/s", here, size, "gstreamer-queue", 1.0)
    for way in ("to-host", "from-host"):
        shared, copied = f"large-shared-view isolated {way}", f"large-copied-out isolated {way}"
        compare(f"{name} shared view {way}", shared, size, "gstreamer-queue", 0.9)
        compare(f"{name} shared view {way}", shared, size, "gstreamer-shm", 1.2)
        compare(f"{name} shared view {way}", shared, size, here, 0.95)
        compare(f"{name} copied out {way}", copied, size, "gstreamer-queue")
for place, way in (("isolated", "to-host"), ("isolated", "from-host"), ("in-process", "to-host")):
    for part, target in (("p50", 1.3), ("p99", None)):
        latency = f"latency-{part} {place} {way}"
        wake = f"paced-wake-up-apart-{part} in-process to-host"
        compare(f"333 Hz {place} {way} {part}, us", latency, 188, wake, target, less=True)
        least = 1.0 if part == "p99" else None
        compare(f"333 Hz {place} {way} {part}, us", latency, 188, f"gstreamer-queue latency-{part}", least, less=True)

head = ("what", "ours", "beside", "theirs", "ratio", "target")
widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
for row in [head, *rows]:
    print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
print("\nothers, medians:")
for (name, size), _ in sorted(found.items()):
    if name.startswith(("iceoryx2", "gstreamer", "cross-core", "memory-copy", "paced", "round")):
        print(f"  {name} {size or ''}: {show(median(name, size))}")
