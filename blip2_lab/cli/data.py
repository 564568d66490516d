"""The commands about data: check pictures with captions, pack them into shards, make scenes of cut-outs.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_lab.cli.options import Command
from blip2_lab.common import console

if TYPE_CHECKING:
    from blip2_lab.data.examples import LeftOut


def declare_data(command: Command) -> None:
    data = command("data", None, "look at pictures with captions, pack them into shards, or make scenes of cut-outs")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=console.Parser)
    check = actions.add_parser("check", help="open every picture and report what is wrong, and how often")
    check.set_defaults(run=_data_check)
    shards = actions.add_parser("shards", help="pack a folder into WebDataset shards with checksums")
    shards.set_defaults(run=_data_shards)
    for action, verb in ((check, "check"), (shards, "pack")):
        action.add_argument("place", metavar="PLACE", help=f"what to {verb}, in any form that train --on takes")
        named = "also write everything that is left out there, with its cause, as lines of JSON"
        action.add_argument("--out" if action is check else "--left-out", type=Path, metavar="FILE", help=named)
    shards.add_argument("out", type=Path, metavar="OUT", help="a new folder for shard-000000.tar … and shards.json")
    shards.add_argument("--per-shard", type=int, default=1000, metavar="N", help="pictures in a shard (default 1000)")
    composites = actions.add_parser("composites", help="place cut-out pictures onto backgrounds, with captions")
    composites.set_defaults(run=_data_composites)
    cut = "pictures with a transparent ground, or with masks (duck.mask.png for duck.png), each with a sentence"
    composites.add_argument("folder", metavar="FOLDER", help=cut)
    composites.add_argument("out", type=Path, metavar="OUT", help="a new folder for scenes with captions.csv")
    composites.add_argument("--scenes", type=int, default=500, metavar="N", help="how many (default 500)")
    composites.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default 0)")
    composites.add_argument("--size", type=int, default=192, metavar="PIXELS", help="side of a picture (default 192)")
    own = "pictures to place the cut-outs onto (default: the places of the picture book)"
    composites.add_argument("--backgrounds", metavar="FOLDER", help=own)


def _data_check(args: argparse.Namespace) -> None:
    from contextlib import nullcontext

    from blip2_lab.data.left_out import check_sources
    from blip2_lab.data.mixture import find_sources

    console.check_writable(args.out)
    sources, _ = find_sources(args.place)
    with args.out.open("w", encoding="utf-8") if args.out else nullcontext() as out:
        for line in check_sources(sources, out):
            print(line)


def _data_shards(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from blip2_lab.data.mixture import find_sources, is_stream
    from blip2_lab.data.packing import pack

    console.check_writable(args.left_out)
    sources, _ = find_sources(args.place)
    if len(sources) > 1 or is_stream(sources[0]):
        raise ValueError(f"{args.place} is not one folder of pictures: pack each folder by itself")
    left_out = []
    try:
        report = pack(sources[0], args.out, args.per_shard, left_out.append)
    finally:
        print_left_out(left_out, " are in the file" if args.left_out else "; --left-out FILE writes all of them")
        if args.left_out:
            lines = [json.dumps({"source": sources[0].name, **asdict(one)}) + "\n" for one in left_out]
            args.left_out.write_text("".join(lines), encoding="utf-8")
    print(report)


def print_left_out(left_out: Sequence[LeftOut], the_rest: str) -> None:
    """Print a line for each of the first `SHOWN`, and how many more there are. `the_rest`: where these are named."""
    from blip2_lab.data.left_out import SHOWN

    for one in left_out[:SHOWN]:
        console.print_progress(f"{one.cause}: {one.message}")
    if left_out[SHOWN:]:
        console.print_progress(f"{len(left_out) - SHOWN} more{the_rest}")


def _data_composites(args: argparse.Namespace) -> None:
    made = write_composites(args.folder, args.scenes, args.out, args.seed, args.size, args.backgrounds)
    print(f"{made}: {args.scenes} pictures with captions and questions; scenes.jsonl has what is where")


def write_composites(cutouts: str, scenes: int, out: Path, *options) -> Path:
    """Write scenes of cut-outs, and say which cut-outs are left out. `options`: further ones of `Composites`."""
    from blip2_lab.data.composites import Composites, write

    composites = Composites(cutouts, *options)
    print_left_out(composites.left_out, " are not used; `blip2-lab data check` of their folder names all")
    return write(composites, scenes, out, say=console.print_progress)
