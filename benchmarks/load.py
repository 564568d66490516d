"""How long `blip2_lab.load("micro")` takes, against transformers' own class on the same folder.

    python -m benchmarks.load

As the first call of a new process, imports and all, and once more when torch and transformers are there. Beside them
stands what importing the two libraries takes alone: no code of ours can be faster than that, the first time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.measure import ratio, spread

FIRST = {
    "ours": "import blip2_lab; blip2_lab.load('micro')",
    "transformers": "from transformers import Blip2ForConditionalGeneration as Model;"
    "from blip2_lab.checkpoints.load import MICRO; Model.from_pretrained(MICRO)",
    "the imports alone": "import torch, transformers.modeling_utils",
}
AGAIN = {name: f"{code}; start = clock(); {code}" for name, code in FIRST.items() if name != "the imports alone"}


def seconds(code: str) -> float:
    """What `code` took in a new process, from its `start` on: it may set that later."""
    script = f"from time import perf_counter as clock; start = clock(); {code}; print(clock() - start)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="new processes of each kind; they take turns (default 7)")
    rounds = parser.parse_args(arguments).rounds
    for title, codes in (("first call of a new process", FIRST), ("once more", AGAIN)):
        times: dict[str, list[float]] = {name: [] for name in codes}
        for _ in range(rounds):
            for name, code in codes.items():
                times[name].append(seconds(code))
        print(title)
        for name, taken in times.items():
            print(f"  {name:18} {spread(taken, '.2f', ' s'):24} {ratio(taken, times['ours'])} of ours")


if __name__ == "__main__":
    main()
