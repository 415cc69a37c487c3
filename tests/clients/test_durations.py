import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.clients.durations import parse, show
from exeunt.clients.views.printable import clock, printable, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10.0), ("10", 10.0), ("1.5m", 90.0), ("2h", 7200.0), ("1d", 86400.0), (" 3s ", 3.0)],
)
def test_parse(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "1w", "1e3", "1.s", "٣s", "inf", "nan", "1s\n2"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00042, "0.42 ms"), (0.0118, "12 ms"), (0.9999, "1 s"), (1.25, "1.25 s"), (59.96, "60 s"), (200, "3m 20s"),
     (8040, "2h 14m"), (442800, "5d 3h")],
)  # fmt: skip
def test_show(seconds: float, text: str) -> None:
    assert show(seconds) == text


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1_150_000, "1.1 MiB"), (12_582_912, "12 MiB"), (None, "–")],
)
def test_size(n_bytes: int | None, text: str) -> None:
    assert size(n_bytes) == text


def test_clock() -> None:
    assert clock("2026-11-23T14:02:11.5Z") == "14:02:11"
    assert clock("2026-11-23T14:02:11.5Z", digits=3) == "14:02:11.500"
    assert clock("2026-11-23T14:02:11Z", digits=3) == "14:02:11.000"
