"""What the buttons of the app's page are answered with: the share that is right, and scenes where all are.

    python -m benchmarks.buttons --scenes 200

The scenes are the first of book 7, of which the page's gallery is chosen (chat/web/components.py). A list or a
description is right if it tells exactly the colored things; a story is not judged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import blip2_lab
from blip2_lab.chat import conversation
from blip2_lab.evaluation.natural.ask import Asker, ask_all
from blip2_lab.evaluation.natural.judge import About, NaturalQuestion, is_right
from blip2_lab.evaluation.natural.questions import in_words
from blip2_lab.picturebook.scene import COLORS, Scene, sample_scene

BOOK = 7


def _right(judge: str, truth: Callable[[Scene], str], about: About | None = None) -> Callable[[str, Scene], bool]:
    """(answer, scene) -> is it right, by the judge of natural questions?"""
    return lambda answer, scene: is_right(
        NaturalQuestion(0, "", "", judge, truth(scene), "", about=about), answer, scene
    )


def _all_colors(answer: str, scene: Scene) -> bool:
    said = set(answer.replace(",", " ").split()) & set(COLORS)
    return said == {thing.color for thing in scene.things}


JUDGES: dict[str, Callable[[str, Scene], bool]] = {
    "what is in the picture?": _right("list", in_words),
    "how many things are there?": _right("number", lambda scene: str(len(scene.things)), About()),
    "what place is this?": _right("place", lambda scene: scene.place),
    "is it day or night?": _right("time", lambda scene: scene.time),
    "what colors are there?": _all_colors,
    "Describe the picture.": _right("list", in_words),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--scenes", type=int, default=200)
    args = parser.parse_args()
    model = blip2_lab.load(args.model)
    book = [sample_scene(BOOK, index, "in") for index in range(args.scenes)]
    buttons = [button for button in conversation.INSTRUCTIONS["micro"] if button in JUDGES]
    asker = Asker(conversation.first_prompt, conversation.ANSWERING)
    right = []
    for button in buttons:
        asked = [NaturalQuestion(index, "", button, "", "", button) for index in range(len(book))]
        answers = ask_all(model, book, asked, asker)
        right.append([JUDGES[button](answer.text, scene) for answer, scene in zip(answers, book, strict=True)])
        print(f"{sum(right[-1]) / len(book):6.3f}  {button}")
    whole = [index for index, verdicts in enumerate(zip(*right, strict=True)) if all(verdicts)]
    print(f"{len(whole) / len(book):6.3f}  all of them, in scenes", *whole)


if __name__ == "__main__":
    main()
