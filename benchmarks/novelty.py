"""How often the shipped model's warning is wrong: `blip2_lab/assets/micro/novelty.json`, measured again.

python -m benchmarks.novelty        (needs the extra "evaluate" for its photographs)
"""

from __future__ import annotations

import json

import blip2_lab
from blip2_lab.chat import out_of_distribution


def main() -> None:
    model = blip2_lab.load("micro")
    print(json.dumps(out_of_distribution.measure(model.image_encoder, out_of_distribution.load("micro")), indent=1))


if __name__ == "__main__":
    main()
