"""Alembic's entry: the connection comes from `holdfast.store.migrate`."""

from alembic import context

from holdfast.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,  # all of an upgrade or nothing, on SQLite too
)
with context.begin_transaction():
    context.run_migrations()
