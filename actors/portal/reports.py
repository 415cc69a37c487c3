"""What is told of an ended connection: each end's report, and what the portal itself observed.

A report is an `Ending` as it travels to the portal and from there to the other end. It is bounded in every field, and
its evidence is texts only: the portal keeps it without understanding it, and a newer peer may have evidence that
nobody here has heard of.
"""

import json
import re
from typing import Annotated, Any, Literal

import msgspec

from ..endings import Ending
from .texts import PRINTABLE, Word

MAX_EVIDENCE = 32
"""Items of evidence in a report."""

MAX_EVIDENCE_CHARS = 256
"""Of one item's text. Together with MAX_EVIDENCE half of the longest frame that the portal accepts."""

MAX_OBSERVATIONS = 64
"""In one answer: the newest."""

_KEY = r"\A[a-z][a-z0-9_]{0,31}\Z"
_RFC3339 = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z"
_UNPRINTABLE = PRINTABLE.removeprefix(r"\A").removesuffix(r"*\Z").replace("[^", "[")
_MAX_COUNT = 2**63 - 1

EvidenceKey = Annotated[str, msgspec.Meta(pattern=_KEY)]
EvidenceText = Annotated[str, msgspec.Meta(max_length=MAX_EVIDENCE_CHARS, pattern=PRINTABLE)]
EvidenceTexts = Annotated[dict[EvidenceKey, EvidenceText], msgspec.Meta(max_length=MAX_EVIDENCE)]
Instant = Annotated[str, msgspec.Meta(max_length=32, pattern=_RFC3339)]
"""RFC 3339, UTC."""
Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_COUNT)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]

Side = Literal["client", "gateway"]


class EndingReport(msgspec.Struct, frozen=True, kw_only=True):
    """One end's `Ending`. See there for what the fields mean."""

    cause: Word
    initiated_by: Word
    acknowledged: bool | None = None
    detection_ms: Milliseconds | None = None
    path: Word | None = None
    started_at: Instant
    ended_at: Instant
    last_seen_at: Instant | None = None
    rx_bytes: Count = 0
    tx_bytes: Count = 0
    evidence: EvidenceTexts = {}

    @classmethod
    def of(cls, ending: Ending) -> "EndingReport":
        """The report of an ending. Evidence that does not fit is cut: no ending is too large to be told."""
        detection_ms = ending.detection_ms
        return cls(
            cause=ending.cause,
            initiated_by=ending.initiated_by,
            acknowledged=ending.acknowledged,
            detection_ms=None if detection_ms is None else min(max(float(detection_ms), 0.0), 1e12),
            path=ending.path,
            started_at=ending.started_at,
            ended_at=ending.ended_at,
            last_seen_at=ending.last_seen_at,
            rx_bytes=min(ending.rx_bytes, _MAX_COUNT),
            tx_bytes=min(ending.tx_bytes, _MAX_COUNT),
            evidence=evidence_texts(ending.evidence),
        )


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the portal saw itself, and an end of the connection may know.

    `side` is whom it concerns; `kind` is one of `link_opened`, `link_closed`, `authorized`, `ice_restarted`,
    `access_revoked`, `ended`, `last_will`, or one that a newer portal knows; `detail` says more, such as how the link
    was closed.
    """

    at: Instant
    kind: Word
    side: Side
    detail: Word = ""


def evidence_texts(evidence: dict[str, Any]) -> dict[str, str]:
    """Evidence as texts within the bounds of a report; items that say nothing or have no proper name are left out."""
    texts = {key: _text(value) for key, value in evidence.items() if value is not None and re.match(_KEY, key)}
    return dict(list(texts.items())[:MAX_EVIDENCE])


def _text(value: Any) -> str:
    match value:
        case str():
            text = value
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.10g}"
        case list() | tuple():
            text = ", ".join(str(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            text = json.dumps(value, default=str)
    printable = re.sub(_UNPRINTABLE, "?", text.encode("utf-8", "replace").decode())
    return printable if len(printable) <= MAX_EVIDENCE_CHARS else printable[: MAX_EVIDENCE_CHARS - 1] + "…"
