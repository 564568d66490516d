"""Many visitors at once for minutes against the served app: errors, crossed answers, waiting times, memory.

    python -m benchmarks.soak                                                 32 visitors for ten minutes
    python -m benchmarks.soak --visitors 8,32,70 --minutes 2                  one number of visitors after the other
    python -m benchmarks.soak --visitors 8,32 --minutes 2 --at-once 16,1      batches, and one at a time
    python -m benchmarks.soak --url http://127.0.0.1:7860                     an app that runs already (no memory then)

Each visitor has a picture of his own, asks one question after the other without a pause, and after the last question
begins again with another picture. The pictures are chosen so that no two visitors get the same answers, and each answer
is compared with the one that the model gives alone: an answer that belongs to another visitor counts as crossed, any
other difference as wrong. Who is told that the page is busy counts as told, waits two seconds and asks again.

It starts the app in a process of its own, on this machine, and the visitors share its processors: seconds are upper
bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

import blip2_lab
from blip2_lab.chat.conversation import Conversation, ImageCache
from blip2_lab.chat.web.api import scene_of
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

QUESTIONS = ("what is in the picture?", "how many things are there?", "what place is this?", "Describe the picture.")
PATIENCE = 180  #: seconds a visitor waits for an answer
ROOT = Path(__file__).parents[1]


@dataclass
class Visitor:
    """A scene for `/draw`, and the answers to QUESTIONS that the model gives alone."""

    scene: dict
    answers: list[str]


@dataclass
class Record:
    """What happened: a line of the table."""

    seconds: list[float] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)  # right, wrong, crossed, told, and errors by their sentence
    memory: list[float] = field(default_factory=list)  # MB, from the beginning to the end

    def line(self, name: str, elapsed: float) -> str:
        ordered = sorted(self.seconds) or [float("nan")]
        at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 1)]
        errors = sum(n for what, n in self.counts.items() if what not in ("right", "wrong", "crossed", "told"))
        numbers = [len(self.seconds), errors, self.counts["wrong"], self.counts["crossed"], self.counts["told"]]
        memory = "–" if not self.memory else "→".join(f"{self._memory(share):.0f}" for share in (0, 0.25, 0.5, 0.75, 1))
        rate = len(self.seconds) / elapsed
        return f"| {name} | {' | '.join(map(str, numbers))} | {rate:.1f} | " + (
            f"{' | '.join(f'{x:.1f}' for x in at)} | {memory} |"
        )

    def _memory(self, share: float) -> float:
        return self.memory[min(len(self.memory) - 1, int(share * len(self.memory)))]


HEAD = (
    "| visitors | answers | errors | wrong | crossed | told busy | answers/s | p50 s | p95 s | max s | memory MB |\n"
    + "|---" * 11
    + "|"
)


# -- the visitors and what they should be answered ---------------------------------------------------------------------


def visitors_for(model: Stage2Model, count: int) -> list[Visitor]:
    """`count` visitors whose lists of answers all differ, as this model answers them alone."""
    found: dict[tuple, Visitor] = {}
    number = 0
    while len(found) < count:
        number += 1
        if number > 50 * count:
            raise SystemExit(f"Only {len(found)} of {number} pictures get answers of their own: no crossing is seen.")
        sampled = sample_scene(11, number)
        things = [[thing.kind, thing.color, thing.size, thing.position] for thing in sampled.things]
        if len({thing[3] for thing in things}) < len(things):
            continue
        scene = dict(things=things, place=sampled.place, time=sampled.time)
        picture = draw(scene_of(scene["place"], scene["time"], things), 384)
        talk, answers = Conversation(model, ImageCache(model).encode(picture)), []
        for question in QUESTIONS:
            *_, last = talk.ask(question, seed=0)
            answers.append(last.text)
        found.setdefault(tuple(answers), Visitor(scene, answers))
    return list(found.values())


class Page:
    """A session of the app's API over HTTP, with the requests that a browser sends."""

    def __init__(self, client: httpx.AsyncClient, config: dict, session: str) -> None:
        self.client, self.session = client, session
        values = {block["id"]: block["props"].get("value") for block in config["components"]}
        self.events = {
            event["api_name"]: (event["id"], [values.get(i) for i in event["inputs"]])
            for event in config["dependencies"]
            if event["api_name"] in ("draw", "ask")
        }

    async def call(self, name: str, **given) -> list:
        """An endpoint with its first inputs -> what it gives. Raises RuntimeError with the app's own sentence."""
        number, inputs = self.events[name]
        data = [*given.values(), *inputs[len(given) :]]
        body = {"data": data, "fn_index": number, "session_hash": self.session, "trigger_id": None, "event_data": None}
        joined = await self.client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            raise RuntimeError(joined.json().get("detail", joined.text))
        url = f"/gradio_api/queue/data?session_hash={self.session}"
        async with self.client.stream("GET", url) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"].get("error") or "an error without a sentence")
                    return message["output"]["data"]  # whole; what came before were changes of it
                if message["msg"] == "unexpected_error":
                    raise RuntimeError(message.get("message"))
        raise RuntimeError("the answer broke off")


async def visit(page: Page, all_visitors: list[Visitor], number: int, end: float, record: Record) -> None:
    """One visitor until the end: a picture, its questions, the next picture."""
    turn = 0
    while time.monotonic() < end:
        own = all_visitors[(number + turn * 7) % len(all_visitors)]
        turn += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await page.call("draw", **own.scene)
            for place, question in enumerate(QUESTIONS):
                began = time.monotonic()
                if began >= end:
                    return
                async with asyncio.timeout(PATIENCE):
                    answer, *_ = await page.call("ask", question=question)
                record.seconds.append(time.monotonic() - began)
                others = {one.answers[place] for one in all_visitors}
                kind = "right" if answer == own.answers[place] else "crossed" if answer in others else "wrong"
                record.counts[kind] += 1
        except TimeoutError:
            record.counts[f"no answer within {PATIENCE} s"] += 1
        except (RuntimeError, httpx.HTTPError) as error:
            sentence = str(error) or type(error).__name__
            is_told = re.search(r"full|busy|many requests", sentence, re.IGNORECASE)
            record.counts["told" if is_told else sentence] += 1
            await asyncio.sleep(2)


async def soak(url: str, found: list[Visitor], count: int, minutes: float, process: subprocess.Popen | None) -> str:
    """One line of the table."""
    record, began = Record(), time.monotonic()
    end = began + 60 * minutes
    limits = httpx.Limits(max_connections=3 * count + 10, max_keepalive_connections=count + 10)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        config = (await client.get("/config")).json()
        visits = [visit(Page(client, config, f"soak{began:.0f}x{i}"), found, i, end, record) for i in range(count)]
        running = asyncio.gather(*visits)
        while not running.done():
            if process is not None and (used := memory_of(process.pid)) is not None:
                record.memory.append(used)
            await asyncio.wait([running], timeout=5)
        await running
    errors = [what for what in record.counts if what not in ("right", "wrong", "crossed", "told")]
    return record.line(str(count), time.monotonic() - began) + "".join(f"\n  {record.counts[e]} x {e}" for e in errors)


def memory_of(pid: int) -> float | None:
    """Resident memory in MB; None where the system does not tell it in /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def started(model: str, port: int, at_once: int) -> tuple[subprocess.Popen, str]:
    """The app in a process of its own, when it answers."""
    command = [sys.executable, "-m", "blip2_lab", "app", "--model", model, "--port", str(port)]
    process = subprocess.Popen([*command, "--at-once", str(at_once)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if found := re.search(r"Open (http://\S+) in", line):
            return process, found[1]
    raise SystemExit("the app did not start")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--visitors", type=numbers, default=[32], metavar="N,…", help="at once (default 32)")
    parser.add_argument("--minutes", type=float, default=10, help="for each number of visitors (default 10)")
    parser.add_argument("--at-once", type=numbers, default=[16], metavar="N,…", help="of the app (default 16)")
    parser.add_argument("--port", type=int, default=7911)
    parser.add_argument("--url", help="of an app that runs already, with this model")
    args = parser.parse_args(arguments)
    found = visitors_for(blip2_lab.load(args.model), max(args.visitors))
    load = Path("/proc/loadavg")
    print(f"{args.model}, {args.minutes:g} minutes each; {len(QUESTIONS)} questions a picture", flush=True)
    print(HEAD, flush=True)
    for count in args.visitors:
        for at_once in args.at_once if args.url is None else [0]:
            process, url = (None, args.url) if args.url else started(args.model, args.port, at_once)
            try:
                line = asyncio.run(soak(url, found, count, args.minutes, process))
            finally:
                if process is not None:
                    process.terminate()
                    process.wait(timeout=60)
            busy = f" load {load.read_text().split()[0]}" if load.is_file() else ""
            print(line.replace("| ", f"| {f'{at_once} in a batch, ' if at_once else ''}", 1) + busy, flush=True)


if __name__ == "__main__":
    main()
