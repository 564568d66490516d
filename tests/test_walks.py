"""The walks of docs/architecture.md, taken: the stack of calls at the last step holds the page's files."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blip2_lab.cli import main
from blip2_lab.models import decoding, losses
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.test_architecture import PACKAGE, PAGE
from tests.training.tasks.test_stages import LAST, SMALL, parts  # noqa: F401  a fixture


def walk(title: str) -> list[str]:
    """The files of the page's walk with this title, in their order."""
    text = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", text, re.MULTILINE)


@contextmanager
def stacks_at(*functions: Callable) -> Iterator[list[list[list[str]]]]:
    """For each function, the stacks of calls, as files of blip2_lab, with which it is called; in new threads, too."""
    codes = [function.__code__ for function in functions]
    found: list[list[list[str]]] = [[] for _ in functions]

    def profile(frame, event, _) -> None:
        if event != "call" or frame.f_code not in codes:
            return
        number, files = codes.index(frame.f_code), []
        while frame:
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                files.append(path.relative_to(PACKAGE).as_posix())
            frame = frame.f_back
        found[number].append(files[::-1])

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def in_one_go(files: list[str]) -> list[str]:
    """The files without repetitions of one that calls itself."""
    return [file for number, file in enumerate(files) if number == 0 or file != files[number - 1]]


def test_the_command_comes_to_itc_loss_through_the_files_of_the_page(parts):  # noqa: F811  the fixture
    settings = [option for change in (*SMALL, *LAST) for option in ("--set", change)]
    with stacks_at(losses.itc_loss) as (stacks,):
        assert main(["train", "micro-stage1", "--runs", str(parts), "--quiet", *settings]) == 0
    page = walk("From `blip2-lab train micro-stage1` to `itc_loss`")
    assert in_one_go(stacks[0]) == [page[step - 1] for step in (1, 2, 5, 6, 9, 10, 11, 12)]


def test_a_question_comes_to_its_answer_through_the_files_of_the_page(tiny_model):
    app = pytest.importorskip("blip2_lab.chat.web.app")
    controls = ("greedy", 5, 0.9, 1.0, 4, -1.0, 1.0)
    next_logits = type(tiny_model.language_model).next_logits
    with stacks_at(app.Batcher.stream, next_logits, decoding.choose_token) as (asked, computed, chosen):
        *_, last = app.App(tiny_model).ask("what is this?", draw(sample_scene(7, 3), 96), [], 0, *controls)
    page = walk("From a question to its answer")
    assert last[1][-1]["content"]
    assert in_one_go(asked[0]) == page[:3]
    assert in_one_go(computed[0]) == page[2:4] and in_one_go(chosen[0]) == [page[2], page[4]]
