"""OpenMP's threads on a busy machine: let them sleep soon while they wait, instead of spinning.

`wait_passively` is the only function. `blip2-lab`, the app and `blip2_lab.load` call it before torch is imported.

Notes:

* OpenMP's threads wait for one another after each operation, by default in a loop that keeps its core. If another
  process needs that core, every operation waits for the scheduler. Threads that sleep at once are woken for each
  operation, which is slow on some virtual machines. `SPINS` rounds of the loop, some ten microseconds, avoid both.
  benchmarks/wait_policy.py measures it.
* GOMP_SPINCOUNT is GNU's, whose OpenMP torch has on Linux. Others follow OMP_WAIT_POLICY alone.
* It has no effect if torch is imported already, and a value that the user has set stays.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import os

SPINS = 10_000  #: on a quiet machine 1,000 (what GNU's OpenMP takes with too many threads) cost up to four tenths


def wait_passively() -> None:
    """Set OMP_WAIT_POLICY=PASSIVE and GOMP_SPINCOUNT for this process and its children, unless one of them is set."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
