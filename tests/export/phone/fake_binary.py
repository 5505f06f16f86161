"""What the fake phone does with an ARM program: `benchmark_model`, in the real one's words; and its ways to fail."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

phone = Path(os.environ["PHONE"])


def main() -> None:
    program, *rest = sys.argv[1:]
    options = dict(option.removeprefix("--").partition("=")[::2] for option in rest)
    behaviour = (phone / "binary.behaviour").read_text().strip()
    if not os.stat(program).st_mode & 0o100 or behaviour == "no execution":
        print(f"sh: {program}: can't execute: Permission denied")
        sys.exit(126)
    if behaviour == "no library":
        print('CANNOT LINK EXECUTABLE "benchmark_model": library "libc++_shared.so" not found')
        sys.exit(127)
    if "help" in options:
        print("usage: benchmark_model\nFlags: ...")
        return
    if behaviour == "hangs":
        time.sleep(600)
    print("INFO: STARTING!")
    print(f"INFO: Graph: [{options['graph']}]", flush=True)
    if behaviour == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "refuses":
        print("ERROR: Failed to initialize the interpreter\nERROR: Benchmarking failed.")
        sys.exit(1)
    if behaviour == "garbage":
        print("INFO: count=\x1b[31mlots of=\nInference timings in us: Init: never, Inference (avg): -7")
        return
    print("INFO: Loaded model")
    delegate = "66 out of 66 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0."
    print(f"VERBOSE: Replacing {delegate}")
    us = 11_000.0 / int(options["num_threads"]) * (2 if Path(options["graph"]).name.startswith("0") else 1)
    counted, runs = int(options["warmup_runs"]), int(options["num_runs"])
    more = "" if behaviour == "old" else f" p5={us * 0.9:g} median={us * 0.97:g} p95={us * 1.2:g}"
    print(
        f"INFO: count={counted} first={us * 2:g} curr={us:g} min={us:g} max={us * 2:g} avg={us * 1.1:g} std=7{more}\n"
    )
    if behaviour == "cut":
        return
    print(f"INFO: count={runs} first={us:g} curr={us:g} min={us * 0.8:g} max={us * 1.5:g} avg={us:g} std=7{more}\n")
    if options.get("enable_op_profiling") == "true":
        print("============================== Summary by node type ==============================")
        print("\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]")
        print("\tTfLiteXNNPackDelegate\t        1\t    10.500\t    95.455%\t    95.455%\t     0.000\t        1")
        print("\t               SOFTMAX\t        1\t     0.500\t     4.545%\t   100.000%\t     0.000\t        1\n")
    print(f"INFO: Inference timings in us: Init: 5317, First inference: {us * 2:g}, Warmup (avg): {us * 1.1:g},"
          f" Inference (avg): {us:g}")  # fmt: skip
    if options.get("report_peak_memory_footprint") == "true":
        print("INFO: Memory footprint delta from the start of the tool (MB): init=5.1 overall=9.3")
        print("INFO: Overall peak memory footprint (MB) via periodic monitoring: 14.25")


main()
