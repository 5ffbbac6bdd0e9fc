"""Child processes with bounded waits and sure ends."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
CLIENT = Path(__file__).with_name("client.py")
STEP_S = 0.005


class Stuck(Exception):
    """Something did not happen in time."""


def wait_until(happened: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait for a condition; gives how long it took."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > timeout_s:
            raise Stuck(f"{what}: not within {timeout_s:g} s")
        time.sleep(STEP_S)
    return time.monotonic() - start


class Child:
    """A process whose standard input stays open as long as the driver lives."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self.log = log

    @classmethod
    def module(cls, name: str, argument: str, log: Path) -> "Child":
        """A module of this folder as a process."""
        return cls([sys.executable, "-m", f"tests.faults.{name}", argument], log)

    @classmethod
    def client(cls, plan: str, log: Path) -> "Child":
        """A client; it needs nothing but the standard library and starts quickly."""
        return cls([sys.executable, "-S", "-E", str(CLIENT), plan], log)

    def line(self, timeout_s: float) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline().decode() if ready else ""
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise Stuck(f"no line from {self.log.stem} within {timeout_s:g} s\n{tail}")
        return line.strip()

    def go(self) -> None:
        """Let a process go on that waits for a byte."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, sig: signal.Signals) -> None:
        if self.running:
            os.kill(self._process.pid, sig)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.log.stem} did not end within {timeout_s:g} s") from None

    def close(self) -> None:
        """End it, whatever it does; safe to call twice."""
        self.send(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Children:
    """All processes of a round; leaving it ends them."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def add(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self._children):
            child.close()
