"""Bytes to and from upstreams: HTTP/1.1, reading many sockets at once, SSE."""
