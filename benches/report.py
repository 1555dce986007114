"""Writes the figures of the last run into docs/benchmarks.md, between its two marks.

    python benches/report.py target/bench docs

reads peers.json, batcher.json and swap.json, and copies swap.svg beside the page.
"""

import datetime
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys

FOREST = [0.25, 0.35, 0.35]
BOOSTING = [0.15, 0.15, 0.15]
LINEAR = [0.2, 0.5, 0.8]
MLP = [0.7, 0.9, 1.0]
ENGINE = [1.0, 1.0, 1.0]
# Threads and batch_timeout in microseconds.
BATCHERS = [(1, 0), (2, 0), (1, 200), (2, 200), (1, 1000)]

# (key in peers.json, what it is, at most this share of onnxruntime's time at batch 1, 32, 256)
MODELS = [
    ("forest", "random forest, 100 deep trees, 76k nodes", FOREST),
    ("forest_depth_8", "random forest, 100 trees of depth 8", FOREST),
    ("boosting", "gradient boosting, 100 trees", BOOSTING),
    ("iris", "logistic regression, iris", LINEAR),
    ("pipeline", "two scalers and a logistic regression", LINEAR),
    ("regression", "scaler and ridge regression", LINEAR),
    ("mlp", "MLP 30-64-32-1", MLP),
    ("cnn", "CNN 28x28", ENGINE),
    ("lstm", "LSTM 16x8->32", ENGINE),
    ("mlp_100mb", "MLP of 100 MB", MLP),
]


def main():
    bench, docs = map(pathlib.Path, sys.argv[1:])
    figures = (read(bench / "peers.json") or []) + (read(bench / "batcher.json") or [])
    found = {(f["work"], f["batch"], f["contender"]): f for f in figures}
    text = f"{machine()}\n\n{models(found)}\n{others(found)}\n{swap(read(bench / 'swap.json'))}"
    page = docs / "benchmarks.md"
    start, end = "<!-- figures -->\n", "<!-- end of figures -->\n"
    before, rest = page.read_text().split(start)
    page.write_text(before + start + "\n" + text.strip() + "\n\n" + end + rest.split(end)[1])
    if (bench / "swap.svg").exists():
        shutil.copy(bench / "swap.svg", docs / "swap.svg")


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def machine():
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    cores = len(re.findall(r"^processor", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split(" (")[0]
    date = datetime.datetime.now(datetime.timezone.utc).date()
    name = processor.group(1) if processor else platform.machine()
    return f"Taken on {date}: {name}, {cores} virtual cores, {rust}; load average at the end {load}."


def models(found):
    lines = [
        "| model | batch | modelswap p50 / p99 | onnxruntime p50 / p99 | bare tract p50 | ratio to onnxruntime | "
        "at most | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, name, targets in MODELS:
        for batch, target in zip((1, 32, 256), targets):
            ours, peer, tract = (found.get((key, batch, c)) for c in ("modelswap", "onnxruntime", "tract"))
            if ours and peer:
                ratio = ours["p50_ns"] / peer["p50_ns"]
                lines.append(
                    f"| {name} | {batch} | {us(ours)} | {us(peer)} | {time(tract['p50_ns']) if tract else ''} | "
                    f"{ratio:.2f} | {target} | {yes(ratio <= target)} |"
                )
    return "\n".join(lines) + "\n"


def others(found):
    lines = ["| what | found | target | reached |", "|---|---|---|---|"]

    def row(what, text, target, reached):
        lines.append(f"| {what} | {text} | {target} | {yes(reached)} |")

    def pick(work, contender, batch=1):
        return found.get((work, batch, contender))

    work = "scorer's overhead, mlp"
    ours = pick(work, "modelswap")
    for base, name in [("bare engine", "this crate's engine without the scorer"), ("tract", "a bare reused tract state")]:
        if ours and (other := pick(work, base)):
            share = ours["p50_ns"] / other["p50_ns"] - 1
            text = f"{share:+.1%} ({time(ours['p50_ns'])} / {time(other['p50_ns'])})"
            row(f"`predict_into`, MLP, one row, over {name}", text, "1 %", share <= 0.01)
    for name in ["a loop over registers", "iris", "boosting", "mlp"]:
        one, two = (pick(f"threads, {name}", f"{n} threads") for n in (1, 2))
        if one and two:
            ratio = two["rows_per_s"] / one["rows_per_s"]
            row(f"calls a second by two threads over one, {name}", f"{ratio:.2f}", "1.9", ratio >= 1.9)
    work = "pipeline, over a network"
    ours = pick(work, "modelswap")
    for peer in ["MLServer, gRPC", "MLServer, REST"]:
        if ours and (other := pick(work, peer)):
            ratio = other["p50_ns"] / ours["p50_ns"]
            text = f"{ratio:.0f} times ({time(other['p50_ns'])} / {time(ours['p50_ns'])})"
            row(f"one prediction by {peer} over one of ours, scalers and a linear model", text, "100 times", ratio >= 100)
    with_, without = (pick("consumer, boosting", c) for c in ("with scoring", "without scoring"))
    if with_ and without:
        ratio = with_["rows_per_s"] / without["rows_per_s"]
        text = f"{ratio:.2f} ({with_['rows_per_s']:,.0f} / {without['rows_per_s']:,.0f} events a second)"
        row("a consumer on real Kafka that scores (gradient boosting) over one that does not", text, "0.9", ratio >= 0.9)
    for model, name in [("forest", "forest"), ("mlp_100mb", "MLP of 100 MB")]:
        for threads, timeout in BATCHERS:
            work = f"batcher, {model}, {threads} threads, batch_timeout {timeout} us"
            alone, batched = pick(work, "single calls"), pick(work, "batcher")
            if alone and batched:
                ratio = batched["rows_per_s"] / alone["rows_per_s"]
                text = f"{ratio:.2f} times ({batched['rows_per_s']:,.0f} / {alone['rows_per_s']:,.0f} rows a second)"
                what = f"the micro-batcher over single calls, {name}, 64 tasks, {threads} threads, {timeout} us"
                row(what, text, "2 times", ratio >= 2)
    if beside := pick("publish to first prediction beside the load, 1 MB", "modelswap"):
        total = pick("publish to first prediction, 1 MB", "modelswap")
        text = f"{time(beside['p50_ns'])} beside the load ({time(total['p50_ns'])} with it)"
        row("publish in one record to first prediction, real Kafka, 1 MB, p50", text, "10 ms", beside["p50_ns"] <= 10e6)
    if small := pick("publish to live, 1 MB", "modelswap"):
        lines.append(f"| publish by `Publisher` to live, real Kafka, 1 MB, p50 | {time(small['p50_ns'])} |  |  |")
    if large := pick("publish to live, 100 MB", "modelswap"):
        row("publish by `Publisher` to live, real Kafka, 100 MB, p50", time(large["p50_ns"]), "0.6 s", large["p50_ns"] <= 6e8)
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def swap(found):
    if not found:
        return ""
    lines = [
        "| scored meanwhile | phases | swaps | predictions | p50 | p99 | p99.9 | longest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for l in found["latency"]:
        quantiles = " | ".join(time(l[q]) for q in ("p50_ns", "p99_ns", "p999_ns", "max_ns"))
        lines.append(f"| {l['scored']} | {l['phase']} | {l['swaps']} | {l['predictions']:,} | {quantiles} |")
    lines += ["", "| with a swap of 100 MB every second over without | p50 | p99 | p99.9 | target | reached | p99.9 of the median phases | p99.9 of single phases without, with |", "|---|---|---|---|---|---|---|---|"]
    for r in found["ratios"]:
        # What a thread without a model sees is there to compare with.
        goal = " | " if r["scored"].startswith("no model") else f"p99.9: 1.1 | {yes(r['p999'] <= 1.1)}"
        phases = ", ".join(f"{time(p[0])} to {time(p[-1])}" for p in r["phases_p999_ns"])
        lines.append(
            f"| {r['scored']} | {r['p50']:.2f} | {r['p99']:.2f} | {r['p999']:.2f} | {goal} | {r['median_p999']:.2f} | {phases} |"
        )
    links = "; ".join(f"{l['alone_gb_s']:.0f} and {l['beside_another_gb_s']:.0f}" for l in found["links"])
    lines += ["", f"What one thread read of memory before each of these, in GB/s, alone and beside another one: {links}."]
    m = found["memory"]
    grown = m["after_all_bytes"] / m["after_10_bytes"] - 1
    lines += [
        "",
        "| memory | found | target | reached |",
        "|---|---|---|---|",
        f"| at the peak of a swap, above what there was before | {m['peak_over_file']:.2f} times the new file | 1.6 times | "
        f"{yes(m['peak_over_file'] <= 1.6)} |",
        f"| after {m['small_swaps']:,} swaps over after 10 | {grown:+.1%} ({m['after_10_bytes'] / 1e6:.1f} -> "
        f"{m['after_all_bytes'] / 1e6:.1f} MB) | 2 % | {yes(grown <= 0.02)} |",
        "",
        "![Latency and memory while a 100 MB model is swapped in every second](swap.svg)",
    ]
    return "\n".join(lines) + "\n"


def us(figure):
    return f"{time(figure['p50_ns'])} / {time(figure['p99_ns'])}"


def time(ns):
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:,.0f} {unit}"
    return f"{ns:.0f} ns"


def yes(reached):
    return "yes" if reached else "**no**"


main()
