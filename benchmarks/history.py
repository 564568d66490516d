"""Does the earlier conversation help the miniature, or confuse it? What to write into `conversation.MICRO_HISTORY`.

    python -m benchmarks.history --scenes 300

For each scene two questions of different types are asked, the second with all of the conversation in front of it, with
only the turn that explains an "it", and with nothing; its accuracy is measured for each. Where "all" is as good as
nothing in front (within `--margin`), the miniature may be talked to as real weights are: write "all".
"""

from __future__ import annotations

import argparse
from random import Random

import torch

import blip2_lab
from blip2_lab.chat import conversation
from blip2_lab.chat.conversation import Conversation, EncodedImage, Turn
from blip2_lab.evaluation import metrics
from blip2_lab.evaluation.scenes import image_features
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import sample_scene

SETTINGS = ("all", "named", "nothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--margin", type=float, default=0.02, help="of accuracy that may be lost (default 0.02)")
    args = parser.parse_args()
    model = blip2_lab.load(args.model)
    accuracy, prompts = measure(model, args.scenes)
    for name in SETTINGS:
        print(f"{name:9}{accuracy[name]:6.3f}   {prompts[name]}")
    better = "all" if accuracy["all"] >= accuracy["nothing"] - args.margin else "named"
    print(f'chat.MICRO_HISTORY is "{conversation.MICRO_HISTORY}"; this says it should be "{better}"')


@torch.no_grad()
def measure(model, scenes: int) -> tuple[dict[str, float], dict[str, str]]:
    """-> accuracy of the second question for each setting, and an example of what the language model was given."""
    book = [sample_scene(1, index, "in") for index in range(scenes)]
    features = image_features(model, book, 64)
    hits: dict[str, list[bool]] = {name: [] for name in SETTINGS}
    prompts: dict[str, str] = {}
    before = conversation.MICRO_HISTORY
    try:
        for number, scene in enumerate(book):
            random = Random(f"history {number}")
            asked = words.questions(scene, random)
            if len(asked) < 2:
                continue
            first, second = random.sample(asked, 2)
            encoded = EncodedImage(features[number : number + 1], model.visual_prompt(features[number : number + 1]))
            for name in SETTINGS:
                conversation.MICRO_HISTORY = "all" if name == "all" else "named"
                turns = [] if name == "nothing" else [Turn(first.text, first.answer)]
                prompts[name] = Conversation(model, encoded, turns).prompt(second.text)
                (answer,) = model.language_model.generate(
                    encoded.visual_prompt, [prompts[name]], Decoding(num_beams=1, max_new_tokens=12)
                )
                hits[name].append(metrics.exact_match(answer, second.answer))
    finally:
        conversation.MICRO_HISTORY = before
    return {name: sum(right) / max(len(right), 1) for name, right in hits.items()}, prompts


if __name__ == "__main__":
    main()
