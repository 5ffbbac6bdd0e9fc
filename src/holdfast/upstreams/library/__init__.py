"""The built-in upstream: full-text search over a folder of documents.

words, stem          text to terms
query                a question to weighted terms
blocks, passages     a document to passages
ranking, compose     passages to an answer
                     (so far pure functions)
folder               the files
database, index      the full-text index and how it follows the files
writer               passages to another upstream, which writes the answer
upstream             `Library`: all of it behind the port, paced
"""

from holdfast.upstreams.library.upstream import Library

__all__ = ["Library"]
