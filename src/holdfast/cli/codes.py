"""Exit codes, the same for every command."""

from enum import IntEnum

from holdfast.client import ServerUnreachable
from holdfast.errors import ConfigError, HoldfastError
from holdfast.events import Outcome, RunEnd


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    FAILED = 1
    """It did not work; `ask`: no answer; `doctor`: something is wrong."""
    USAGE = 2
    """Wrong arguments or settings."""
    PARTIAL = 3
    """`ask`: the answer ended early; what had arrived was shown."""
    UNREACHABLE = 4
    """No server answers at the address given, or not any more."""
    INTERRUPTED = 130
    """Ctrl-C."""


def of_error(error: HoldfastError) -> ExitCode:
    """The exit code for a command that ended with `error`."""
    if isinstance(error, ServerUnreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, ConfigError):
        return ExitCode.USAGE
    return ExitCode.FAILED


def of_end(end: RunEnd) -> ExitCode:
    """The exit code for an answer that ended like this."""
    match end.outcome:
        case Outcome.COMPLETED:
            return ExitCode.OK
        case Outcome.CANCELLED | Outcome.INTERRUPTED:
            return ExitCode.PARTIAL
        case Outcome.FAILED:
            return ExitCode.FAILED
