"""Start the app: `main` is what `python app.py` and `blip2-lab app` call.

Notes:

* A wrong option, a port that is taken and a model that is not there are refused before torch and gradio are imported,
  which takes seconds. So nothing heavy is imported here.

Notebook: 12.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from blip2_lab.chat.web.visitors import host_and_port, is_loopback
from blip2_lab.checkpoints.hub import check_available
from blip2_lab.checkpoints.local import check_holds_model
from blip2_lab.common import console, threads

AUTH = "BLIP2_LAB_AUTH"  #: the environment variable with USER:PASSWORD


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options. `--host` and `--auth` decide who can open the page."""
    parser = console.Parser(prog="app.py", description="A chat about a picture with BLIP-2, in the browser.")
    parser.add_argument("--model", default="micro", help='"micro" (shipped), a folder, or a hub name (default: micro)')
    beside = "a second model, side by side with the first: the same picture and the same question to both"
    parser.add_argument("--beside", metavar="MODEL", help=beside)
    parser.add_argument("--quantize", choices=["none", "int8", "int8-all", "nf4"], help="8 or 4 bits (default none)")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="pictures to search in (default: drawn ones)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the frozen parts")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, … (default: cpu)")
    parser.add_argument("--compile", action="store_true", help="the decoder: slower to start, faster to answer")
    together = "questions of several visitors answered in one batch (default 16; 1: one after the other)"
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help=together)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="1 to 65535; default 0: a free one")
    asked = f"ask visitors for these, a must with any other --host; better in {AUTH}: arguments are seen by all users"
    parser.add_argument("--auth", metavar="USER:PASSWORD", help=asked)
    proxied = "a name under which a proxy in front serves this page; may be given again"
    parser.add_argument("--public-name", metavar="NAME", action="append", default=[], help=proxied)
    args = parser.parse_args(arguments)
    if args.beside is not None and args.gallery is not None:
        parser.error("--gallery is a folder to search in, and the page of two models (--beside) does not search")
    if args.beside is not None and args.beside == args.model:
        parser.error(f"--beside is {args.beside}, the model itself: give another one")
    if args.at_once < 1:
        parser.error(f"--at-once is {args.at_once}: at least one question is answered at once")
    for name in args.public_name:
        if host_and_port(name) != (name.lower(), 80):
            parser.error(
                f"--public-name is {name!r}: give the name alone, such as chat.example.org, without http:// and port"
            )
    if args.auth is None:
        args.auth = os.environ.get(AUTH) or None
    if not is_loopback(args.host) and not args.auth:
        parser.error(f"--host {args.host} lets others in: say who may come with {AUTH} or --auth, USER:PASSWORD")
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error(f"--auth and {AUTH} want USER:PASSWORD, with a colon between them")
    return args


def check_port(host: str, port: int) -> None:
    """Raises ValueError where no page can be opened, in one sentence and before a model is loaded in vain."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gradio: a page that has ended counts not
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "ports are 1 to 65535"
        raise ValueError(f"No page can be opened at {host}:{port} ({why}); give another --port, or none.") from None


def main(arguments: list[str] | None = None) -> None:
    """Check what can be checked at once, then import, load and serve."""
    args = parse(arguments)
    threads.wait_passively()
    try:
        check_port(args.host, args.port)
        for model in filter(lambda name: name is not None, (args.model, args.beside)):
            check_holds_model(model)
            check_available(model)
        if args.gallery is not None:
            from blip2_lab.common.images import pictures_in

            pictures_in(args.gallery)
        names = args.model if args.beside is None else f"{args.model} and {args.beside}"
        print(f"Loading {names}{' and compiling its decoder: a minute' if args.compile else ''} …", flush=True)
        from blip2_lab.chat.web import app

        app.run(args)
    except KeyboardInterrupt:
        console.print_progress("\napp.py: stopped")
        sys.exit(130)
    except Exception as error:
        if (sentence := console.explain(error)) is None:
            raise
        console.print_progress(f"app.py: {sentence}")
        sys.exit(2)


if __name__ == "__main__":
    main()
