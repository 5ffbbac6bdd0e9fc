"""A node as a process that goes with the driver, whatever happens to the driver.

    python -m tests.cluster.process CONFIG SKEW [MUTANT]

It is `holdfast serve --config CONFIG` on a machine whose clock is SKEW seconds ahead; MUTANT breaks
a promise on purpose.
"""

import sys
import time
from unittest.mock import patch

from holdfast.cli.main import app
from tests.cluster.mutants import MUTANTS
from tests.faults.lifeline import die_with_parent


def main() -> None:
    die_with_parent()
    config, skew, *mutant = sys.argv[1:]
    ahead_ns, now_ns = int(skew) * 1_000_000_000, time.time_ns
    patch.object(time, "time_ns", lambda: now_ns() + ahead_ns).start()
    for name in mutant:
        MUTANTS[name].install()
    app(["serve", "--config", config])


if __name__ == "__main__":
    main()
