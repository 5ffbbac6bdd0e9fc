"""The store on PostgreSQL, for many nodes."""

from holdfast.store.postgres.store import PostgresStore as PostgresStore
