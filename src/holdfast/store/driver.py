"""What the writes of the port need of a database: the connection that writes, in a transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from holdfast.store.port import Append
from holdfast.store.rows import Row
from holdfast.store.statements import Prepared


class Driver(Protocol):
    """Runs the statements of one transaction, one after the other."""

    @property
    def node(self) -> Mapping[str, Any]:
        """`node_id` and `generation` of this process, for the runs that it creates."""

    def change(self, statement: Prepared, values: Mapping[str, Any]) -> int:
        """Run `statement`; the number of rows that it changed."""

    def change_many(self, statement: Prepared, values: Sequence[Mapping[str, Any]]) -> None:
        """Run `statement` once for each of `values`."""

    def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Row]:
        """The rows that `statement` finds."""

    def append(self, append: Append) -> None:
        """Add a row to the journal."""

    def stored_log(self, run_id: str) -> bytes:
        """What the journal has of a run."""

    def pack(self, log: bytes) -> bytes:
        """The stored form of a whole log."""

    def forget_journal(self, run_id: str) -> None:
        """The run's rows in the journal are needed no more."""
