"""OpenMP's threads on a busy machine: let them sleep while they wait, instead of spinning.

`wait_passively` is the only function. `blip2-lab`, the app and `blip2_lab.load` call it before torch is imported.

Notes:

* OpenMP's threads wait for one another after each operation, by default in a loop that keeps its core. If another
  process needs that core, every operation waits for the scheduler. benchmarks/wait_policy.py measures both policies.
* It has no effect if torch is imported already, and a value that the user has set stays.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Set OMP_WAIT_POLICY=PASSIVE for this process and its children, unless it is set."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
