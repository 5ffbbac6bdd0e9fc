"""For load balancers and people on call."""

from starlette.types import ASGIApp

from holdfast.http.endpoint import Call, json_response
from holdfast.http.operation import Operation
from holdfast.runner.supervisor import Supervisor


class StatusRoutes:
    """Alive, and able."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Tell of `supervisor`."""
        self._supervisor = supervisor

    async def healthz(self, call: Call) -> ASGIApp:
        """The process is alive; with what it has done so far."""
        supervisor = self._supervisor
        return json_response(
            {
                "status": "ok",
                "commits": supervisor.commits.commits,
                "live_runs": supervisor.live_runs,
            }
        )

    async def readyz(self, call: Call) -> ASGIApp:
        """Whether a question would be taken now; the reason when not."""
        if self._supervisor.ready:
            return json_response({"status": "ready"})
        why = "draining" if self._supervisor.draining else "store_unavailable"
        return json_response({"status": why}, 503, {"Retry-After": "1"})


def operations(supervisor: Supervisor) -> list[Operation]:
    """Alive, and able; for anybody."""
    status = StatusRoutes(supervisor)
    return [
        Operation("GET", "/healthz", status.healthz, "Whether the process is alive", scope=None),
        Operation(
            "GET", "/readyz", status.readyz, "Whether a question would be taken now", scope=None
        ),
    ]
