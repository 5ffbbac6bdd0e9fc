"""The store on SQLite: a file, for one process."""

from holdfast.store.sqlite.store import SqliteStore as SqliteStore
