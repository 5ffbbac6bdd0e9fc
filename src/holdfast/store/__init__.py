"""Where conversations are kept: the port, its implementations and the group commit."""
