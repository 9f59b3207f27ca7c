"""Make the README's table and the roofline picture from benchmarks/results/.

    python -m benchmarks.report             # from the runs that are there
    python -m benchmarks.report --measure   # time every layer anew first, both ways (half an hour)
    python -m benchmarks.report --check     # exit status 1 if a file would change

Of each layer the newest result counts, of the machine that measured last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastdl.bench.layer import KINDS
from fastdl.bench.layers import LAYERS, REPRESENTATIVE
from fastdl.bench.record import FOLDER, Record, load, newest
from fastdl.bench.roofline import overview
from fastdl.bench.run import FASTEST, NAIVE, REFERENCE, LayerTimes
from fastdl.bench.summary import Standing, standings
from fastdl.bench.table import duration, figure, speed

OURS, SECOND = "compiled", "jit"
BEGIN, END = "<!-- benchmarks.report: begin {} -->\n", "<!-- benchmarks.report: end {} -->\n"
ROOT = Path(__file__).parents[1]
PICTURE = "roofline.png"

#: How `--measure` times: the whole list, then those whose rows the README shows, with all backends.
COMMANDS = (
    ["--layers", "all", "--backends", f"{OURS},{SECOND}"],
    ["--layers", ",".join(REPRESENTATIVE)],
)
HOW = ["--against", "all", "--calls", "20", "--seconds", "0.3", "--save"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=ROOT / FOLDER, metavar="FOLDER")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.measure and (status := measure(args.results)):
        return status
    records = of_one_machine(load(args.results))
    if not records:
        print(f"no runs in {args.results}; python -m benchmarks.report --measure makes some")
        return 1
    changed = [
        path
        for path, text in pages(records, args.root).items()
        if path.read_text(encoding="utf-8") != text
    ]
    if args.check:
        for path in changed:
            print(f"{path} is not what python -m benchmarks.report makes of {args.results}")
        return 1 if changed else 0
    for path, text in pages(records, args.root).items():
        path.write_text(text, encoding="utf-8")
    (args.results / PICTURE).write_bytes(picture(records))
    return 0


def measure(folder: Path) -> int:
    """Time every layer with memory as it comes, and reused by all."""
    for memory in ([], ["--reuse"]):
        for chosen in COMMANDS:
            command = ["bench", *chosen, *HOW, os.path.relpath(folder, ROOT), *memory]
            print("fastdl", *command, flush=True)
            status = subprocess.run(
                [sys.executable, "-m", "fastdl", *command], cwd=ROOT, check=False
            )
            if status.returncode:
                return status.returncode
    return 0


def of_one_machine(records: Sequence[Record]) -> list[Record]:
    """The runs of the machine, instruction set and threads that were used last."""
    return [record for record in records if record.place == records[-1].place]


def pages(records: Sequence[Record], root: Path) -> dict[Path, str]:
    """Each page that shows figures, as it should read."""
    readme, every = root / "README.md", root / "docs" / "benchmarks.md"
    return {
        readme: between(readme, "table", summary_text(records)),
        every: between(every, "layers", every_layer(records)),
    }


def between(path: Path, name: str, text: str) -> str:
    """The page with ``text`` between the markers of that name."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{path} has no lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}\n{text}\n{end}{after}"


# --- the README's part ---------------------------------------------------------


def summary_text(records: Sequence[Record]) -> str:
    return "\n\n".join([method(records), classes(records), examples(records)])


def method(records: Sequence[Record]) -> str:
    """Machine, versions, date, command."""
    last = records[-1]
    machine, versions = last.machine, last.machine["versions"]
    processor, isa, threads = last.place
    dates = sorted({f"{record.date:%Y-%m-%d}" for record in records})
    commits = dict.fromkeys(record.machine["commit"] or "no repository" for record in records)
    packages = ", ".join(f"{name} {versions[name]}" for name in versions if name != "fastdl")
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{processor}, {isa}, {threads} threads, {machine['system']}; fastdl "
        f"{versions['fastdl']} ({', '.join(commits)}), {packages}; {span}. Limits of this "
        f"machine, measured: {last.limits.all}. Made by `fastdl bench --save`, whose runs and "
        f"commands are in benchmarks/results/ (some time a part of the layers; "
        f"`python -m benchmarks.report --measure` times all): single calls in turn in one process, "
        f"the median of at least 20, float32."
    )


def classes(records: Sequence[Record]) -> str:
    """A row a class: the ratio to the fastest peer, with and without reuse, mean and worst."""
    reused, default = newest(records, reuse=True), newest(records, reuse=False)
    columns = [
        {s.kind: s for s in standings(times, name)}
        for times, name in ((reused, OURS), (default, OURS), (reused, SECOND))
    ]
    head = (
        "How many times as fast as the fastest of PyTorch, ONNX Runtime and OpenVINO that serves "
        "a layer: the geometric mean of a class of layers, and its worst. *Reused*: everyone's "
        "memory is reused from call to call; *as it comes*: each library has it as a user gets "
        "it.\n\n"
        f"| class | layers | {OURS}, reused | worst | {OURS}, as it comes | worst "
        f"| {SECOND}, reused |\n"
        "| --- | ---: | ---: | --- | ---: | --- | ---: |"
    )
    kinds = dict.fromkeys(kind for column in columns for kind in column)
    rows = [_class_row(kind, *(column.get(kind) for column in columns))
            for kind in sorted(kinds, key=_order)]  # fmt: skip
    return "\n".join([head, *rows])


def _order(kind: str) -> tuple[int, bool]:
    forward = kind.removesuffix(", backward")
    return KINDS.index(forward), kind != forward


def _class_row(
    kind: str, reused: Standing | None, default: Standing | None, second: Standing | None
) -> str:
    def mean(standing: Standing | None) -> str:
        return f"{standing.mean:.2f}" if standing else "-"

    def worst(standing: Standing | None) -> str:
        return f"{standing.worst:.2f} {standing.worst_layer}" if standing else "-"

    count = max(standing.layers for standing in (reused, default, second) if standing)
    cells = [kind, f"{count}", mean(reused), worst(reused), mean(default), worst(default)]
    return _line([*cells, mean(second)])


def examples(records: Sequence[Record]) -> str:
    """Single layers, with the naive loops and the reference."""
    limit = records[-1].limits.all
    chosen = [t for t in newest(records, reuse=True) if t.layer.label in REPRESENTATIVE]
    head = (
        f"Single layers ({OURS}, memory reused). *Of limit*: the part of what this machine's "
        f"arithmetic or memory allows (over 100 %: the arrays stayed in cache, or fewer operations "
        f"than the direct algorithm's). *x*: times as fast as.\n\n"
        f"| layer | time | speed | of limit | x {NAIVE} | x {REFERENCE} | x {SECOND} | x torch "
        f"| x {FASTEST} |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = []
    for times in sorted(chosen, key=lambda t: REPRESENTATIVE.index(t.layer.label)):
        row = times.row(OURS)
        if row is None:
            continue
        ratios = [times.ratio(row, name) for name in (NAIVE, REFERENCE, SECOND, "torch", FASTEST)]
        cells = [
            f"{times.layer}",
            duration(row.seconds),
            speed(times.layer, row.seconds),
            f"{100 * limit.fraction(times.layer, row.seconds):.0f}% {limit.binding(times.layer)}",
            *("-" if ratio is None else figure(ratio) for ratio in ratios),
        ]
        rows.append(_line(cells))
    return "\n".join([head, *rows])


# --- every layer ---------------------------------------------------------------


def every_layer(records: Sequence[Record]) -> str:
    """A row a layer, in the order of the list."""
    places = {layer.label: place for place, layer in enumerate(LAYERS)}
    reused = {t.layer.label: t for t in newest(records, reuse=True)}
    default = {t.layer.label: t for t in newest(records, reuse=False)}
    labels = sorted(reused | default, key=lambda label: places.get(label, len(places)))
    limit = records[-1].limits.all
    peers = ("torch", "onnxruntime", "openvino")
    head = (
        f"| layer | class | {OURS} | speed | of limit | " + " | ".join(f"x {p}" for p in peers)
        + f" | x {FASTEST} | as it comes | {SECOND} x {FASTEST} |\n"
        "| --- | --- |" + " ---: |" * (6 + len(peers))
    )  # fmt: skip
    rows = [
        _layer_row(reused.get(label), default.get(label), limit.fraction, peers) for label in labels
    ]
    return "\n".join([head, *rows])


def _layer_row(
    reused: LayerTimes | None, default: LayerTimes | None, fraction, peers: Iterable[str]
) -> str:
    times = reused or default
    layer, row, second = times.layer, times.row(OURS), times.row(SECOND)
    cells = [f"{layer.label}<br>{layer}", layer.kind]
    if row is None:
        cells += ["-", "-", "-"]
    else:
        cells += [duration(row.seconds), speed(layer, row.seconds)]
        cells += [f"{100 * fraction(layer, row.seconds):.0f}%"]
    cells += [_ratio(reused, OURS, name) for name in (*peers, FASTEST)]
    cells += [_ratio(default, OURS, FASTEST)]
    cells += [_ratio(reused, SECOND, FASTEST) if second else "-"]
    return _line(cells)


def _ratio(times: LayerTimes | None, name: str, other: str) -> str:
    row = times.row(name) if times else None
    ratio = times.ratio(row, other) if times and row else None
    return "-" if ratio is None else figure(ratio)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def picture(records: Sequence[Record]) -> bytes:
    processor, isa, threads = records[-1].place
    return overview(
        newest(records, reuse=True),
        records[-1].limits,
        f"fastdl, {OURS}: {processor}, {isa}, {threads} threads, memory reused",
        OURS,
    )


if __name__ == "__main__":
    sys.exit(main())
