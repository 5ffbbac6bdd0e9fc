"""The server's edge: routes, streaming responses, protections."""
