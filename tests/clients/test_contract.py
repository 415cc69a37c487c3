"""The documents that scripts rely on, against the schemas in docs/contract."""

from pathlib import Path

import msgspec
import pytest

from exeunt.clients import schemas
from exeunt.clients.contract import DOCUMENTS, Demo, Ending, Leftovers, SpanRow
from exeunt.clients.inspection_contract import ActorRow

CONTRACT = Path(__file__).parents[2] / "docs" / "contract"


def test_the_schemas_on_disk_are_those_of_the_code(tmp_path: Path) -> None:
    schemas.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in CONTRACT.glob("*.json")}
    assert written == committed, "run: python -m exeunt.clients.schemas docs/contract"


def test_a_document_that_is_no_more_loses_its_schema(tmp_path: Path) -> None:
    (tmp_path / "gone.1.json").write_text("{}")
    schemas.write(tmp_path)
    assert not (tmp_path / "gone.1.json").exists()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_names_its_version(name: str) -> None:
    program, _, rest = name.partition(".")
    assert program == "exeunt"
    assert rest.partition("/")[2].isdigit()


@pytest.mark.parametrize(
    ("struct", "fields"),
    [
        (Demo, ("connect_ms first_byte_ms download_bytes download_mbit_s sha256_ok path sign_out_ms endings drained "
               "workers leftovers")),
        (Ending, ("connection peer side cause initiated_by evidence detection_ms acknowledged started_at ended_at "
                 "last_seen_at rx_bytes tx_bytes path")),
        (ActorRow, "address kind state worker pid mailbox handled_total restarts since_s cpu_percent rss_bytes"),
        (SpanRow, "id cause from to message worker sent_ns received_ns started_ns ended_ns outcome"),
    ],
)  # fmt: skip
def test_the_fields_that_scripts_were_promised(struct: type[msgspec.Struct], fields: str) -> None:
    assert set(fields.split()) <= {field.encode_name for field in msgspec.structs.fields(struct)}


def test_no_leftovers_are_an_empty_object() -> None:
    assert msgspec.json.encode(Leftovers()) == b"{}"
    assert msgspec.json.encode(Leftovers(devices=["tun0"])) == b'{"devices":["tun0"]}'
