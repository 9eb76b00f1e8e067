#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The results of docs/results.md: LoRA against SoRA at several budgets, a curve, generation, pace.

The data folder holds one folder for each task (cola, sst2, mrpc, e2e) with train.jsonl and
dev.jsonl. Each run leaves one JSON file in the work folder; runs that have theirs are not repeated,
and one that was stopped goes on from its checkpoint. The tables are written anew after every run,
from the runs that there are.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TASKS = {"cola": "mcc", "sst2": "accuracy", "mrpc": "accuracy"}
# MRPC's examples are three times as long as the others'; half of them take as long as SST-2's.
ROWS = {"mrpc": 1500, "e2e": 1500}
# Name -> options. A budget of 50 % of r_max = 16 is the parameters of LoRA r = 8. Gates begin at
# N(0, 1) and shrink, so SoRA has twice LoRA's alpha; with it LoRA was no better (SST-2, 1,500 rows,
# seed 1: loss on dev 0.1513 with alpha 32 and 0.1511 with 16; SoRA at 50 % 0.1586 and 0.1629).
METHODS = {
    "LoRA r=8": ["--method", "lora", "--rank", "8", "--alpha", "16"],
    "SoRA r_max=8, 70%": ["--rank", "8", "--alpha", "32", "--target-params", "70%"],
    "SoRA r_max=8, 50%": ["--rank", "8", "--alpha", "32", "--target-params", "50%"],
    "SoRA r_max=16, 50%": ["--rank", "16", "--alpha", "64", "--target-params", "50%"],
}
SEEDS = 3
CURVE = "linear:0:5e-3:6"
PARTS = ("cola", "sst2", "mrpc", "compute", "curve", "e2e", "pace")
COMMON = ["--batch-tokens", "560", "--lr", "1e-3"]


class OutOfTime(Exception):
    """The bound on the whole is reached, or someone stopped a run; the next call goes on."""


class Work:
    """The runs that are done, and how to do one."""

    def __init__(self, args):
        self.args = args
        self.folder = pathlib.Path(args.work) / f"rows-{args.rows}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.deadline = time.monotonic() + 3600 * args.hours

    def rows(self, task):
        return min(self.args.rows, ROWS.get(task, self.args.rows))

    def data(self, task, split, rows=None):
        """The first rows of a split, as a file."""
        source = pathlib.Path(self.args.data) / task / f"{split}.jsonl"
        if rows is None:
            return source
        out = self.folder / f"{task}-{split}-{rows}.jsonl"
        if not out.exists():
            with open(source, encoding="utf-8") as lines:
                picked = [line for _, line in zip(range(rows), lines)]
            out.write_text("".join(picked), "utf-8")
        return out

    def once(self, name, command):
        """The JSON that a command prints, from the file of an earlier call where there is one."""
        done = self.folder / f"{name}.json"
        if done.exists():
            return json.loads(done.read_text("utf-8"))
        if time.monotonic() > self.deadline:
            raise OutOfTime
        print(f"{name}: {shlex.join(map(str, command))}", file=sys.stderr, flush=True)
        result = json.loads(self.output(name, [str(c) for c in command]).splitlines()[-1])
        temporary = done.with_suffix(".tmp")
        temporary.write_text(json.dumps(result), "utf-8")
        temporary.replace(done)
        return result

    def output(self, name, words):
        """What a command prints; what it says while it works goes to a file beside its result."""
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            run = subprocess.run(words, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
        if run.returncode in (130, 143):
            raise OutOfTime
        if run.returncode != 0:
            raise RuntimeError(f"{name}: exit code {run.returncode}, see {log.name}")
        return run.stdout.strip()

    def train(self, name, task, options, evaluate=True, threads=1, compute="int8"):
        out = self.folder / f"{name}.safetensors"
        command = [self.args.binary, "train", "--model", self.args.model, "--json"]
        command += ["--data", self.data(task, "train", self.rows(task)), "--out", out]
        if evaluate:
            command += ["--eval-data", self.data(task, "dev", self.args.dev_rows)]
        command += ["--checkpoint", self.folder / f"{name}.checkpoint", "--resume", *COMMON]
        command += ["--epochs", self.args.epochs, "--threads", threads, "--compute", compute]
        return self.once(name, [*command, *options, *shlex.split(self.args.train_options)]), out


def run_one(work, seed, task, number):
    """A row of the results."""
    method = list(METHODS)[number]
    name = f"{task}-{number}-{seed}"
    result, _ = work.train(name, task, [*METHODS[method], "--seed", str(seed)])
    return {
        "task": task, "method": method, "seed": seed, "metric": TASKS[task],
        "quality": result["eval"][TASKS[task]], "eval": result["eval"],
        "parameters": result["parameters"], "kept": result["kept"],
        "seconds": result["seconds"], "tokens": result["tokens"],
        "peak_rss_bytes": result["peak_rss_bytes"], "machine": machine(),
    }  # fmt: skip


def run_tasks(work, tasks, results):
    """All methods, then the next task, then the next seed, so that a part of it is of use too."""
    seeds = range(1, work.args.seeds + 1)
    done = {(r["seed"], r["task"], r["method"]) for r in results["tasks"]}
    planned = [(s, t, n) for s in seeds for t in tasks for n, m in enumerate(METHODS)
            if (s, t, m) not in done]  # fmt: skip
    lock = threading.Lock()

    def run(item):
        row = run_one(work, *item)
        with lock:
            results["tasks"].append(row)
            order = list(METHODS)
            results["tasks"].sort(key=lambda r: (r["task"], r["seed"], order.index(r["method"])))
            write(results, work.args.out)

    # A run has the same result with any number of threads: one each wastes the least.
    with concurrent.futures.ThreadPoolExecutor(work.args.jobs) as pool:
        runs = [pool.submit(run, item) for item in planned]
        for done in concurrent.futures.as_completed(runs):
            if done.exception() is not None:
                pool.shutdown(wait=True, cancel_futures=True)
                raise done.exception()


def run_compute(work):
    """LoRA with f32 forwards, beside the same runs with int8 ones."""
    rows = []
    planned = [(task, seed) for seed in (1, 2) for task in ("cola", "sst2")]
    lora = METHODS["LoRA r=8"]

    def run(item):
        task, seed = item
        options = [*lora, "--seed", str(seed)]
        plain, _ = work.train(f"{task}-f32-{seed}", task, options, compute="f32")
        fast, _ = work.train(f"{task}-0-{seed}", task, options)
        return {"task": task, "seed": seed, "metric": TASKS[task],
                **{f"{name}_{what}": result["eval"][TASKS[task] if what == "quality" else what]
                   for name, result in (("f32", plain), ("int8", fast))
                   for what in ("quality", "loss")}}  # fmt: skip

    with concurrent.futures.ThreadPoolExecutor(work.args.jobs) as pool:
        rows += pool.map(run, planned)
    return rows


def picture_of(out):
    return out.with_name(f"{out.stem}-curve.svg")


def run_curve(work):
    options = ["--rank", "16", "--alpha", "64", "--xi-schedule", CURVE, "--seed", "1"]
    result, out = work.train("curve", "cola", options, threads=work.args.jobs)
    picture_of(work.args.out).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out.with_suffix(".ladder.svg"), picture_of(work.args.out))
    return [
        {
            "stage": s["stage"], "xi": s["xi"], "parameters": s["parameters"], "kept": s["kept"],
            "quality": s["eval"][TASKS["cola"]], "loss": s["eval"]["loss"], "seconds": s["seconds"],
        }
        for s in result["stages"]
    ]  # fmt: skip


def run_generation(work):
    rows = []
    for number, method in enumerate(("LoRA r=8", "SoRA r_max=8, 50%")):
        options = [*METHODS[method], "--seed", "1"]
        result, out = work.train(f"e2e-{number}", "e2e", options, False, work.args.jobs)
        command = [work.args.binary, "eval", "--model", work.args.model, "--adapter", out, "--json"]
        command += ["--data", work.data("e2e", "dev", work.args.dev_rows)]
        command += ["--threads", work.args.jobs]
        scores = work.once(f"e2e-{number}-eval", command)
        rows.append(
            {"method": method, "parameters": result["parameters"], "seconds": result["seconds"],
             **{k: scores[k] for k in ("loss", "bleu", "rouge_l", "exact_match")}}
        )  # fmt: skip
    return rows


def run_pace(work):
    """A few dozen steps each, one after another on one machine: ours, PEFT's AdaLoRA and LoRA."""
    rows = []
    data = work.data("sst2", "train", work.args.pace_steps * 16)
    for name, method, compute in (
        ("SoRA, f32", "SoRA r_max=8, 70%", "f32"),
        ("SoRA, int8 forwards", "SoRA r_max=8, 70%", "int8"),
        ("LoRA, f32", "LoRA r=8", "f32"),
    ):
        file = "pace-" + name.replace(", ", "-").replace(" ", "-")
        command = [work.args.binary, "train", "--model", work.args.model, "--json", "--epochs", "1"]
        command += ["--data", data, "--out", work.folder / "pace.safetensors", *COMMON]
        command += ["--compute", compute, "--threads", work.args.jobs, *METHODS[method]]
        ours = work.once(file, command)
        rows.append({"method": f"{name}, this program", "seconds": ours["seconds"],
                     "tokens_per_second": ours["tokens_per_second"],
                     "peak_rss_bytes": ours["peak_rss_bytes"]})  # fmt: skip
    for method in ("adalora", "lora"):
        command = [sys.executable, work.args.reference, method, work.args.hf, work.args.data]
        command += ["sst2", "--max-steps", str(work.args.pace_steps), "--eval", "0"]
        theirs = work.once(f"pace-{method}", command)
        rows.append({"method": f"{method}, PEFT", "seconds": theirs["seconds"],
                     "tokens_per_second": theirs["tok_per_s"],
                     "peak_rss_bytes": theirs["peak_rss_mb"] << 20})  # fmt: skip
    return rows


def spread(values):
    mean = statistics.fmean(values)
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def shown(values, digits=3):
    mean, deviation = spread(values)
    text = f"{mean:.{digits}f}"
    return text if math.isnan(deviation) else f"{text} ± {deviation:.{digits}f}"


def by_method(rows, task):
    groups = {}
    for row in rows:
        if row["task"] == task:
            groups.setdefault(row["method"], []).append(row)
    return groups


def compare(plain, pruned):
    """Mean difference of the runs with the same seed and its standard error: over the seeds, and
    with one seed, or equal ones, that of a share of the dev rows, or of a correlation near 0."""
    theirs = {r["seed"]: r for r in plain}
    pairs = [(r, theirs[r["seed"]]) for r in pruned if r["seed"] in theirs]
    differences = [a["quality"] - b["quality"] for a, b in pairs]
    mean, deviation = spread(differences)
    if not deviation > 0:
        share, count = pairs[0][1]["eval"]["accuracy"], pairs[0][1]["eval"]["examples"]
        variance = 1 if pairs[0][1].get("metric") == "mcc" else share * (1 - share)
        return mean, math.sqrt(2 * variance / count), len(pairs)
    return mean, deviation / math.sqrt(len(pairs)), len(pairs)


def verdict(mean, error):
    if mean >= 0:
        return "holds"
    return "below, by less than its standard error" if -mean < error else "does not hold"


def claims(results):
    """(text, verdict) of each claim that the runs so far can answer."""
    found = []
    for task in TASKS:
        groups = by_method(results["tasks"], task)
        plain = groups.get("LoRA r=8", [])
        for method in list(METHODS)[1:]:
            pruned = groups.get(method, [])
            if not {r["seed"] for r in plain} & {r["seed"] for r in pruned}:
                continue
            mean, error, seeds = compare(plain, pruned)
            text = f"{task}: {method} is not below LoRA r=8 ({mean:+.4f} ± {error:.4f}, "
            text += f"{seeds} seed{'s' if seeds > 1 else ''})"
            learnt = statistics.fmean(r["eval"]["mcc"] for r in plain) > 0.05
            found.append((text, verdict(mean, error) if learnt else "LoRA has learnt nothing here"))
    pace = {r["method"]: r["tokens_per_second"] for r in results["pace"] or []}
    for name in ("SoRA, f32", "SoRA, int8 forwards"):
        if "adalora, PEFT" not in pace:
            break
        part = pace["adalora, PEFT"] / pace[f"{name}, this program"]
        text = f"{name}, takes at most 70 % of the time of PEFT's AdaLoRA ({100 * part:.0f} %)"
        found.append((text, "holds" if part <= 0.7 else "does not hold"))
    return found


def missing(results):
    """What the whole has and these results do not yet."""
    found = [part for part in ("compute", "curve", "e2e", "pace") if not results[part]]
    for task in TASKS:
        seeds = {r["seed"] for r in results["tasks"] if r["task"] == task}
        if len(seeds) < SEEDS:
            found.append(f"{task} with {SEEDS - len(seeds)} of {SEEDS} seeds")
    return found


def write_markdown(results, path):
    data = path.with_suffix(".json").name
    out = ["# Results", "", "Made by `scripts/reproduce.sh`; the numbers behind it are in "
           f"`{data}`. {results['about']} Runs have int8 forwards, but for those that say f32. "
           f"Machines: {machines(results)}.", ""]  # fmt: skip
    if missing(results):
        out += [f"Not run yet: {', '.join(missing(results))}.", ""]
    for task in TASKS:
        groups = by_method(results["tasks"], task)
        if not groups:
            continue
        out += [f"## {task}", "", f"| method | seeds | {TASKS[task]} on dev | parameters | kept | "
                "seconds on one core |", "|---|---|---|---|---|---|"]  # fmt: skip
        for method, rows in groups.items():
            kept = statistics.fmean(r["kept"] for r in rows)
            parameters = statistics.fmean(r["parameters"] for r in rows)
            out.append(f"| {method} | {len(rows)} | {shown([r['quality'] for r in rows])} | "
                       f"{parameters:,.0f} | {100 * kept:.1f} % | "
                       f"{shown([r['seconds'] for r in rows], 0)} |")  # fmt: skip
        out.append("")
    if results["compute"]:
        out += ["## Training with int8 forwards against f32 (LoRA r=8)", "",
                "| task | seed | metric on dev, f32 | int8 | loss on dev, f32 | int8 |",
                "|---|---|---|---|---|---|"]  # fmt: skip
        out += [f"| {r['task']} | {r['seed']} | {r['f32_quality']:.4f} | {r['int8_quality']:.4f} | "
                f"{r['f32_loss']:.4f} | {r['int8_loss']:.4f} |"
                for r in results["compute"]]  # fmt: skip
        out.append("")
    if results["curve"]:
        out += ["## Quality against size (CoLA, one run with a schedule)", "",
                "Every stage is one more pass over the rows, so what is learnt grows while the "
                "adapter shrinks.", "",
                f"![accuracy on dev against parameters]({picture_of(path).name})", "",
                "| xi | parameters | kept | mcc on dev |", "|---|---|---|---|"]  # fmt: skip
        out += [f"| {r['xi']:.2g} | {r['parameters']:,} | {100 * r['kept']:.1f} % | "
                f"{r['quality']:.4f} |" for r in results["curve"]]  # fmt: skip
        out.append("")
    if results["e2e"]:
        out += ["## Generation (E2E, one seed)", ""]
        out += ["| method | parameters | loss | BLEU | ROUGE-L |", "|---|---|---|---|---|"]
        out += [f"| {r['method']} | {r['parameters']:,} | {r['loss']:.4f} | {r['bleu']:.4f} | "
                f"{r['rouge_l']:.4f} |" for r in results["e2e"]]  # fmt: skip
        out.append("")
    if results["pace"]:
        out += ["## Pace", "", "| method | tokens/s | memory at the peak |", "|---|---|---|"]
        out += [f"| {r['method']} | {r['tokens_per_second']:.0f} | "
                f"{r['peak_rss_bytes'] / 1e6:,.0f} MB |" for r in results["pace"]]  # fmt: skip
        out.append("")
    out += ["A run's seconds are those of one thread beside another run; for comparing times "
            "there is the table of pace.", ""]  # fmt: skip
    answered = claims(results)
    if answered:
        out += ["## Claims", ""]
        out += [f"- {text}: **{answer}**" for text, answer in answered]
        out.append("")
    path.write_text("\n".join(out), "utf-8")


def write(results, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    write_markdown(results, out.with_suffix(".md"))


def machine():
    try:
        cpu = next(x for x in pathlib.Path("/proc/cpuinfo").read_text("ascii").splitlines()
                   if x.startswith("model name")).split(":")[1].strip()  # fmt: skip
    except (OSError, StopIteration):
        cpu = platform.processor() or "unknown"
    return f"{cpu}, {os.cpu_count()} processors"


def machines(results):
    return "; ".join(sorted({r["machine"] for r in results["tasks"]} or {machine()}))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    parser.add_argument("--data", required=True, help="folder with cola, sst2, mrpc, e2e")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; repeatable")
    parser.add_argument("--binary", default=ROOT / "build" / "sora-server")
    parser.add_argument("--model", default=default)
    parser.add_argument("--work", default=ROOT / "build" / "reproduce", help="where runs are kept")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results")
    parser.add_argument("--rows", type=int, default=3000, help="training rows of a run")
    parser.add_argument("--dev-rows", type=int, help="evaluation rows (all)")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--hours", type=float, default=4, help="no new run starts after that")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, of one "
                        "thread each; threads of what is timed (all processors)")  # fmt: skip
    parser.add_argument("--train-options", default="", help="more options of `train` for every run")
    parser.add_argument("--reference", help="a train_ref.py, for the pace of torch and PEFT")
    parser.add_argument("--hf", help="its base as a Hugging Face folder")
    parser.add_argument("--pace-steps", type=int, default=30)
    args = parser.parse_args()
    if args.reference and not args.hf:
        parser.error("--reference needs --hf FOLDER")
    return args


def start(args):
    """The results so far, when they were made with the same settings."""
    about = (
        f"{args.rows} training rows ({ROWS['mrpc']} at most of MRPC and E2E), "
        f"{args.epochs} pass(es) a run, "
        f"{args.dev_rows or 'all'} rows of the dev split"
        f"{', ' + args.train_options if args.train_options else ''}."
    )
    fresh = {"about": about, "tasks": [], "compute": [], "curve": [], "e2e": [], "pace": []}
    earlier = args.out.with_suffix(".json")
    if not earlier.exists():
        return fresh
    found = json.loads(earlier.read_text("utf-8"))
    return found if found["about"] == about else fresh


def run_part(work, part, results):
    if part == "compute":
        results["compute"] = run_compute(work)
    elif part == "curve":
        results["curve"] = run_curve(work)
    elif part == "e2e":
        results["e2e"] = run_generation(work)
    elif work.args.reference:
        results["pace"] = run_pace(work)
    else:
        print("SKIPPED pace: no --reference train_ref.py is given", file=sys.stderr)
    write(results, work.args.out)


def main():
    args = parse()
    results = start(args)
    work = Work(args)
    try:
        parts = args.part or PARTS
        tasks = [part for part in parts if part in TASKS]
        if tasks:
            run_tasks(work, tasks, results)
        for part in parts:
            if part not in TASKS:
                run_part(work, part, results)
    except OutOfTime:
        print("stopped; the same command goes on from here", file=sys.stderr)
    for text, answer in claims(results):
        print(f"{text}: {answer}")


if __name__ == "__main__":
    main()
