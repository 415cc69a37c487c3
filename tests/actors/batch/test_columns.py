"""What columns keep from one call to the next."""

import pytest

pytest.importorskip("numpy")

from exeunt.actors.batch.columns import Columns

RUN = (16, 4, 100, 60)


def test_slices_are_of_the_buffer_itself_and_made_once() -> None:
    columns, data = Columns(), memoryview(bytearray(2_000))
    plain, sealed = columns.slices(data, RUN, 16)
    assert [len(each) for each in plain] == [60] * 4
    assert [len(each) for each in sealed] == [76] * 4
    data[316], data[316 + 75] = 7, 8
    assert (plain[3][0], sealed[3][75]) == (7, 8)
    assert columns.slices(data[16:], (0, 4, 100, 60), 16)[0] is plain, "it is the same place"
    assert columns.slices(data, (16, 6, 100, 60), 16)[0] is plain
    assert len(plain) == len(sealed) == 6
    assert columns.slices(data, (17, 4, 100, 60), 16)[0] is not plain
    assert columns.slices(memoryview(bytearray(2_000)), RUN, 16)[0] is not plain


def test_they_are_kept_for_the_runs_that_were_used_last() -> None:
    columns, data = Columns(), memoryview(bytearray(2_000))
    plain, _ = columns.slices(data, RUN, 16)
    for start in range(100, 120):
        columns.slices(data, (start, 4, 100, 60), 16)
        assert columns.slices(data, RUN, 16)[0] is plain
    for start in range(200, 220):
        columns.slices(data, (start, 4, 100, 60), 16)
    assert columns.slices(data, RUN, 16)[0] is not plain
