"""The command line: `blip2-lab COMMAND …`, the same as `python -m blip2_lab COMMAND …`.

    run        read the command, run it, print an error as one sentence: begin here
    options    what several commands share: which model, in which precision
    pictures   draw, ask, index, search, app
    training   models, recipes, plan, train, push
    data       data check, data shards, data composites
    measuring  doctor, evaluate, compare
    classroom  class

Notes:

* Each command is declared (its options and their help) and run in one module: `declare_ask` and `_ask`.
* Imports are inside the command that needs them, so that `blip2-lab --help` answers at once.
* With `--json`, results are printed to stdout as JSON for programs.

Notebook: 00.
"""

from blip2_lab.cli.run import main

__all__ = ["main"]
