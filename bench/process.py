"""Processes the benchmark starts: bounded waits, sure ends, and what they cost (Linux)."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STOP_S = 5


class BenchError(Exception):
    """Something the benchmark needs did not work; the text is for the user."""


class Process:
    """A child in a session of its own, so that Ctrl-C reaches the driver only, which ends it.

    A context manager: leaving it kills the child and its descendants, by their ids. What it
    prints goes to a log in `directory`, or with `talks` (standard output only) to `read_line`.
    """

    def __init__(
        self, command: list[str], directory: Path, name: str, *, talks: bool = False
    ) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("w") as log:
            self._child = subprocess.Popen(
                command,
                cwd=directory,
                env=_clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                bufsize=0,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in self.tree():
            _kill(pid)
        self._child.wait(_STOP_S)
        if self._child.stdout is not None:
            self._child.stdout.close()

    def ended(self) -> bool:
        return self._child.poll() is not None

    def read_line(self, timeout_s: float) -> str:
        """The next line it prints; its end or the end of time is an error."""
        stdout = self._child.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], timeout_s)
        line = stdout.readline().decode() if ready else ""
        if not line:
            raise BenchError(f"{self.name} said nothing in {timeout_s:g} s\n{self.log_tail()}")
        return line

    def send(self, sig: signal.Signals) -> None:
        self._child.send_signal(sig)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def tree(self) -> list[int]:
        """Its id and those of its living descendants."""
        return [] if self.ended() else tree_of(self._child.pid)

    def cpu_us(self) -> float:
        """User and system time of the tree so far, its dead descendants included."""
        return cpu_us(self.tree())

    def memory_kib(self, field: str) -> int:
        """`VmRSS` (now) or `VmHWM` (peak), summed over the tree."""
        return sum(_status_kib(pid, field) for pid in self.tree())


def tree_of(root: int) -> list[int]:
    """A process and its living descendants."""
    children = _children_by_parent()
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_us(tree: list[int]) -> float:
    """User and system time of these processes and of the dead that they have waited for."""
    return sum(_cpu_ns(pid) for pid in tree) / 1000


def _clean_environment() -> dict[str, str]:
    """Ours without what would change a target: its settings and proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOLDFAST_") and not name.lower().endswith("_proxy")
    }


def _die_with_parent() -> None:
    """Even a driver that was killed leaves nothing behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the second may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            parent = int(_stat_fields(int(entry))[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry))
    return children


def _cpu_ns(pid: int) -> int:
    """The kernel's clock of a process: nanoseconds, where /proc has only ticks of 10 ms."""
    try:
        waited_for = sum(int(ticks) for ticks in _stat_fields(pid)[13:15])
        own = time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:  # it ended just now, and is its parent's from here on
        return 0
    return own + waited_for * _NS_PER_TICK


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0
