"""How OpenMP's threads wait: training steps and answers of the miniature by default, sleeping at once, and soon.

    python -m benchmarks.wait_policy [--rounds 3] [--threads 2]

The policies take turns, each in a process of its own, because torch reads the policy when it is imported. The load of
the machine before each round is printed: on a quiet machine the ratios say what a policy costs, on a busy one what it
saves. `blip2_lab.common.threads` sets the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks.measure import ratio

POLICIES = {
    "default": {},
    "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "SPIN 1000": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
    "SPIN 10000": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
}
STEPS, ANSWERS = 6, 4
LIMIT = 300  #: seconds after which a process is given up: then its time is at least that


def measure(threads: int) -> dict[str, float]:
    """Median seconds of a training step (stage 2, 32 pairs) and of an answer, in this process."""
    import torch

    torch.set_num_threads(threads)
    from blip2_lab.checkpoints.load import load
    from blip2_lab.data.scenes import PictureBook

    model, scene = load("micro"), PictureBook(7, "in", 96)[3]
    features = torch.randn(32, model.image_encoder.num_features, model.image_encoder.width)
    captions = [scene.captions[0]] * 32
    for part in (model.qformer, model.language_projection):
        part.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        model.loss(image_features=features, captions=captions, prompts=["a picture of"] * 32).backward()
        optimizer.step()
        optimizer.zero_grad()

    def answer() -> None:
        model.generate(scene.image, "Question: what is in the picture? Short answer:")

    return {"training step": _median(step, STEPS), "answer": _median(answer, ANSWERS)}


def _median(run, times: int) -> float:
    seconds = []
    for _ in range(times + 1):  # the first one warms up
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def in_a_process(policy: dict[str, str], threads: int) -> dict[str, float]:
    """`measure` with these variables of the environment."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | policy
    command = [sys.executable, "-m", "benchmarks.wait_policy", "--child", "--threads", str(threads)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return {"training step": float("inf"), "answer": float("inf")}
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often both take their turn (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: all cores)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measure(args.threads)))
        return
    seconds: dict[str, dict[str, list[float]]] = {}
    for turn in range(args.rounds):
        load = "unknown" if not hasattr(os, "getloadavg") else f"{os.getloadavg()[0]:.1f}"
        print(f"round {turn + 1}: load {load} on {os.cpu_count()} cores, {args.threads} threads", flush=True)
        for name, policy in POLICIES.items():
            found = in_a_process(policy, args.threads)
            print(f"  {name:9}" + "".join(f"  {what} {value:.3f} s" for what, value in found.items()), flush=True)
            for what, value in found.items():
                seconds.setdefault(what, {}).setdefault(name, []).append(value)
    for what, by_policy in seconds.items():
        default, *others = by_policy
        for name in others:
            print(f"{what}: the default takes {ratio(by_policy[default], by_policy[name])} times as long as {name}")


if __name__ == "__main__":
    main()
