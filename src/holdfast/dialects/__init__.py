"""The wire formats spoken to clients: events in, bytes out, no I/O."""
