"""`python -m bench`: Penstock and the floor program, the same load, interleaved A B B A in one run.

Prints MB and requests per broker CPU-second of both and the ratio of each round (median, smallest,
largest), since absolute figures of such machines mean little. The CPU of the warm-up is counted on
both sides alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from bench.harness import BenchError, Floor, Penstock, Server, build, generate

# name: (unit of the cost, load generator's options)
SCENARIOS: dict[str, tuple[str, list[str | int]]] = {
    "produce-64k": (
        "bytes",
        ["--records", 64, "--record-bytes", 1010, "--connections", 4, "--depth", 2],
    ),
    "produce-1m": (
        "bytes",
        ["--records", 1000, "--record-bytes", 1030, "--connections", 2, "--depth", 2],
    ),
    "produce-small": (
        "requests",
        ["--records", 1, "--record-bytes", 100, "--connections", 32, "--depth", 5],
    ),
}


def measure(kind: type[Server], options: list[str | int], seconds: float) -> dict[str, float]:
    with kind() as server:
        server.create_topic("bench", 16)
        return generate(server, *options, "--partitions", 16, "--warmup", 0.3, "--seconds", seconds)


def run(name: str, rounds: int, seconds: float) -> dict[str, object]:
    unit, options = SCENARIOS[name]
    per_cpu: dict[str, list[float]] = {"penstock": [], "floor": []}
    latencies: list[float] = []
    ratios = []
    for number in range(rounds):
        order: list[type[Server]] = [Penstock, Floor] if number % 2 == 0 else [Floor, Penstock]
        this: dict[str, float] = {}
        for kind in order:
            figures = measure(kind, options, seconds)
            this[kind.name] = figures[unit] / figures["cpu"]
            per_cpu[kind.name].append(this[kind.name])
            if kind is Penstock:
                latencies.append(figures["latency_ns"]["p99"] / 1e6)  # type: ignore[index]
        ratios.append(this["floor"] / this["penstock"])
    scale, label = (1e6, "MB") if unit == "bytes" else (1e3, "k requests")
    ours, floor = (statistics.median(per_cpu[side]) / scale for side in ("penstock", "floor"))
    print(
        f"{name:<14} {label:>10} per CPU-s: penstock {ours:9.1f}  floor {floor:9.1f}"
        f"  cost/floor median {statistics.median(ratios):.2f}"
        f" (min {min(ratios):.2f}, max {max(ratios):.2f})"
        f"  p99 {statistics.median(latencies):.2f} ms",
        flush=True,
    )
    return {"scenario": name, "unit": unit, "per_cpu_second": per_cpu, "cost_ratio": ratios}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scenario", nargs="*", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time a side and round")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    options = parser.parse_args()
    try:
        build()
        results = [run(name, options.rounds, options.seconds) for name in options.scenario]
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
