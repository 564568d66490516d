"""The commands about pictures: draw, ask, index, search, and the app in the browser.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from blip2_lab.cli.options import Command, load, model_options, refuse_unused
from blip2_lab.common import console


def declare_ask(command: Command) -> None:
    ask = command("ask", _ask, "ask a question about a picture")
    ask.add_argument("picture", metavar="PICTURE", help="PNG, JPEG, WebP, GIF, BMP or TIFF")
    ask.add_argument("prompt", metavar="PROMPT", help='for example "Question: what color is the boat? Short answer:"')
    model_options(ask)
    ask.add_argument("--beams", type=int, default=5, metavar="N", help="width of the search; 1: greedy (default 5)")
    ask.add_argument("--max-tokens", type=int, default=30, metavar="N", help="longest answer (default 30)")
    ask.add_argument("--length-penalty", type=float, default=-1.0, metavar="X", help="below 0: short (default -1)")
    ask.add_argument("--sample", action="store_true", help="draw from the nucleus instead of searching")
    ask.add_argument("--top-p", type=float, default=0.9, metavar="P", help="with --sample: the nucleus (default 0.9)")
    ask.add_argument("--temperature", type=float, default=1.0, metavar="X", help="with --sample (default 1)")
    ask.add_argument("--seed", type=int, default=0, help="with --sample (default 0)")
    ask.add_argument("--json", action="store_true", help="print answer, warnings, each token's probability as JSON")


def _ask(args: argparse.Namespace) -> None:
    from blip2_lab.common.characters import has_no_word
    from blip2_lab.common.images import open_image

    if has_no_word(args.prompt):
        raise ValueError('the prompt has no word: ask something, for example "Question: what is this? Short answer:"')
    if not args.sample:
        refuse_unused(args, ("top_p", "temperature"), "is for drawing an answer: give --sample, too")
    if os.path.isfile(args.prompt) and not os.path.exists(args.picture):
        raise ValueError("the picture comes first, then the prompt: blip2-lab ask PICTURE PROMPT")
    image = open_image(args.picture)  # before the model: errors in the options are reported at once
    import torch

    from blip2_lab.chat.vocabulary import read
    from blip2_lab.models.decoding import Decoding, check_seed

    decoding = dict(num_beams=args.beams, max_new_tokens=args.max_tokens, length_penalty=args.length_penalty)
    if args.sample:
        decoding |= dict(num_beams=1, do_sample=True, top_p=args.top_p, temperature=args.temperature)
    Decoding(**decoding)
    check_seed(args.seed)
    model = load(args)
    reading = read(model.language_model.tokenizer, args.prompt)
    notes = [note for note in (_outside(args, model, image), reading.note) if note]
    for note in notes:
        console.print_progress(f"note: {note}")
    torch.manual_seed(args.seed)
    tokens = list(model.stream(image, reading.text, **decoding))
    answer = "".join(token.text for token in tokens).strip()
    if args.json:
        token_list = [{"text": token.text, "probability": round(token.probability, 4)} for token in tokens]
        asked = {"model": args.model, "prompt": args.prompt}
        console.print_json({**asked, "answer": answer, "tokens": token_list, "warnings": notes})
    else:
        print(answer)


def _outside(args: argparse.Namespace, model, image) -> str | None:
    """What the app says about a picture that is like none the model has seen."""
    from blip2_lab.chat import out_of_distribution

    if (familiar := out_of_distribution.load(args.model)) is None:
        return None
    distance = out_of_distribution.distances_of(familiar, model.image_encoder, [image]).item()
    return out_of_distribution.outside_sentence(distance, familiar.limit) if distance > familiar.limit else None


def declare_draw(command: Command) -> None:
    draw = command("draw", _draw, "draw a scene of the picture book")
    draw.add_argument("--seed", type=int, default=0, help="which book (default 0)")
    draw.add_argument("--index", type=int, default=0, help="which page (default 0)")
    draw.add_argument("--split", default="train", help="train, in, near or out (default train)")
    draw.add_argument("--size", type=int, default=384, metavar="PIXELS", help="side of the picture (default 384)")
    draw.add_argument("--out", type=Path, metavar="FILE", help="where to write the picture (default scene.png)")
    draw.add_argument("--json", action="store_true", help="print the scene's truth as JSON; draw only with --out")


def _draw(args: argparse.Namespace) -> None:
    from blip2_lab.data.scenes import PictureBook

    book = PictureBook(args.seed, args.split, args.size)
    example = book[args.index]
    out = args.out or (None if args.json else Path("scene.png"))
    if out is not None:
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".gif"):
            raise ValueError(f"{out} does not end in .png, .jpg, .webp or .gif")
        example.image.save(out)
    if args.json:
        scene = {"seed": args.seed, "index": args.index, "split": args.split, **book.scene(args.index).to_dict()}
        questions = [{"type": q.type, "question": q.text, "answer": q.answer} for q in example.questions]
        console.print_json({**scene, "captions": example.captions, "questions": questions})
    else:
        print(f"{out}: {example.captions[0]}")


def declare_index(command: Command) -> None:
    index = command("index", _index, "read a folder of pictures once, so that it can be searched")
    index.add_argument("folder", type=Path, metavar="FOLDER", help="pictures in it and below it")
    index.add_argument("--no-rerank", action="store_true", help="a smaller index and a rougher search: ITC alone")
    model_options(index)


def _index(args: argparse.Namespace) -> None:
    from blip2_lab.common.images import pictures_in

    pictures_in(args.folder)  # before torch and the model: a wrong folder is reported at once
    from blip2_lab.chat import image_search

    file = args.folder / image_search.FILE
    console.check_writable(file)
    model = load(args, answers=False)
    previous = image_search.load(file) if file.is_file() else None
    index = image_search.build(
        model, args.folder, previous=previous, rerank=not args.no_rerank, say=console.print_progress
    )
    image_search.save(index, file)
    print(f"{file}: {console.count_of(len(index), 'picture', 'pictures')}")


def declare_search(command: Command) -> None:
    search = command("search", _search, "find pictures by a sentence or by a picture, in a folder that was indexed")
    search.add_argument("query", metavar="QUERY", help='a sentence ("a red boat") or the path of a picture')
    search.add_argument("--folder", type=Path, default=Path(), metavar="FOLDER", help="where to search (default here)")
    search.add_argument("--top", type=int, default=10, metavar="N", help="how many to show (default 10)")
    search.add_argument("--json", action="store_true", help="print the pictures and their scores as JSON")
    model_options(search)


def _search(args: argparse.Namespace) -> None:
    from blip2_lab.chat import image_search

    if args.top < 1:
        raise ValueError(f"--top is {args.top}; it must be 1 or more")
    index = image_search.load(args.folder / image_search.FILE)
    model = load(args, answers=False)
    find = image_search.search_like if os.path.isfile(args.query) else image_search.search
    hits = find(model, index, args.query, top=args.top)
    if args.json:
        console.print_json({"query": args.query, "hits": [{"file": h.file, "itc": h.itc, "itm": h.itm} for h in hits]})
    else:
        print("\n".join(image_search.lines(hits)))


def declare_app(command: Command) -> None:
    # passes all options on, --help included, to chat/web/start.py
    command("app", _app, "open the chat about a picture in the browser (see `blip2-lab app --help`)", add_help=False)


def _app(args: argparse.Namespace) -> None:
    from blip2_lab.chat.web import start

    start.main(args.rest)
