"""`holdfast serve` with everything logged that anybody logs, and a fault of its own.

A prefix for `tests.support.server.Server`: its arguments are the server's command.
"""

import logging
import os
import sys
from typing import Any

BOOM = "boom"
"""The id of a session that cannot be looked up without breaking down."""


def main(command: list[str]) -> None:
    """Run the command in this process."""
    os.environ["PYTHONASYNCIODEBUG"] = "1"
    logging.basicConfig(level=logging.DEBUG)
    logging.Logger.setLevel = lambda self, level: None  # type: ignore[method-assign]

    from holdfast.cli.main import app
    from holdfast.runner.supervisor import Supervisor

    get_session = Supervisor.get_session

    async def broken(self: Supervisor, owner: str, session_id: str) -> Any:
        if session_id == BOOM:
            raise RuntimeError("broken down on purpose")
        return await get_session(self, owner, session_id)

    Supervisor.get_session = broken  # type: ignore[method-assign, assignment]
    sys.argv = ["holdfast", *command[command.index("holdfast.cli") + 1 :]]
    app()


if __name__ == "__main__":
    main(sys.argv[1:])
