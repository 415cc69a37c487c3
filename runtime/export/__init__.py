"""Traces in other tools' formats. Each is a pure function from spans to a document; none reads or writes a file."""

from .chrome import chrome, firefox
from .jsonl import jsonl
from .otlp import otlp

__all__ = ["chrome", "firefox", "jsonl", "otlp"]
