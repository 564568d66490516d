"""How often the shipped model's warning is wrong: `blip2_lab/assets/micro/novelty.json`, measured again.

python -m benchmarks.novelty        (needs the extra "evaluate" for its photographs)
"""

from __future__ import annotations

import json

import blip2_lab
from blip2_lab import novelty


def main() -> None:
    model = blip2_lab.load("micro")
    print(json.dumps(novelty.measure(model.image_encoder, novelty.load("micro")), indent=1))


if __name__ == "__main__":
    main()
