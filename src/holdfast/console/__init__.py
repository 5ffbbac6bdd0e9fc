"""The chat page: static files that the server hands out at `/`."""
