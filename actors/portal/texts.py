"""Texts that strangers send: bounded and printable, because they end up on terminals, in logs and in a database."""

from typing import Annotated

import msgspec

PRINTABLE = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z"
"""No control characters and no bidirectional overrides."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_.:-]+\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
Text = Annotated[str, msgspec.Meta(max_length=512, pattern=PRINTABLE)]
Word = Annotated[str, msgspec.Meta(max_length=64, pattern=PRINTABLE)]
"""A cause, a reason, a kind: from a list that a newer version may have added to."""
