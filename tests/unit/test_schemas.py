"""The published schemas: the same as the structs, the same bytes each time, and true of real events."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from kaohe import schemas
from kaohe.events import PAYLOADS

OLD_LOG = Path(__file__).parents[1] / "data" / "old-log-v1.jsonl"


def test_the_files_in_schemas_are_those_of_the_structs() -> None:
    assert schemas.differences(schemas.FOLDER) == [], "run `make schemas` and look at what changed"


def test_the_same_structs_give_the_same_bytes() -> None:
    assert schemas.documents() == schemas.documents()


def test_a_changed_a_missing_and_a_left_over_file_are_found_and_put_right(tmp_path: Path) -> None:
    assert len(schemas.write(tmp_path)) == len(schemas.documents())
    assert schemas.differences(tmp_path) == []
    (tmp_path / "events" / "call.held.json").write_bytes(b"{}\n")
    (tmp_path / "events" / "ticket.closed.json").unlink()
    (tmp_path / "events" / "call.gone.json").write_bytes(b"{}\n")
    wrong = ["events/call.gone.json", "events/call.held.json", "events/ticket.closed.json"]
    assert schemas.differences(tmp_path) == wrong
    assert schemas.write(tmp_path) == wrong
    assert schemas.differences(tmp_path) == []


def test_check_says_which_file_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schemas, "FOLDER", tmp_path)
    assert schemas.main([]) == 0
    assert schemas.main(["--check"]) == 0
    (tmp_path / "asyncapi.yaml").write_bytes(b"")
    assert schemas.main(["--check"]) == 1
    assert "schemas/asyncapi.yaml" in capsys.readouterr().err
    assert schemas.main(["--wrong"]) == 2


def test_there_is_a_schema_for_every_event_type() -> None:
    files = schemas.documents()
    for tag in schemas.SENT:
        schema = json.loads(files[f"events/{tag}.json"])
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["properties"]["type"] == {"enum": [tag]}
        assert "data" in schema["required"]
        assert schema["description"]
        assert PAYLOADS[tag].__name__ in schema["$defs"]


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    files = schemas.documents()
    document = YAML(typ="safe").load(files["asyncapi.yaml"].decode())
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        "kaohe.events", "kaohe.decisions", "kaohe.alerts", "kaohe.grades", "kaohe.partials", "kaohe.rejects",
        "kaohe.settlements",
    }  # fmt: skip
    references = list(_references(document))
    assert len(references) > 100
    for reference in references:
        if reference.startswith("./"):
            assert reference[2:] in files
        else:
            target = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            assert target
    sent = {
        message["payload"]["$ref"]
        for message in document["components"]["messages"].values()
        if "$ref" in message["payload"]
    }
    assert sent == {f"./{name}" for name in files if name.endswith(".json") and name != "outputs/metric.json"}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [each for child in node.values() for each in _references(child)]
    return []


def test_the_schemas_accept_every_event_of_the_old_log() -> None:
    files = schemas.documents()
    for raw in OLD_LOG.read_bytes().splitlines():
        event = json.loads(raw)
        schema = json.loads(files[f"events/{event['type']}.json"])
        assert _faults(event, schema, schema) == [], event["id"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"type": "call.held"}, "enum"),
        ({"subject": ""}, "minLength"),
        ({"time": 7}, "type"),
        ({"data": {"wait_ms": 1}}, "required"),
        ({"data": {"call_id": "c", "wait_ms": -1}}, "minimum"),
        ({"data": {"call_id": "c", "customer": "13812345678"}}, "pattern"),
    ],
)
def test_the_schema_refuses_what_decoding_refuses(change: dict[str, Any], fault: str) -> None:
    event = {
        "id": "e", "source": "s", "type": "call.answered", "subject": "q", "time": "2026-08-03T01:00:00Z",
        "data": {"call_id": "c"},
    }  # fmt: skip
    schema = schemas.event_schema("call.answered")
    assert _faults(event, schema, schema) == []
    assert _faults({**event, **change}, schema, schema) == [fault]


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
}  # fmt: skip


def _faults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """The keywords of ``schema`` that ``value`` breaks: a plain reading of the keywords that our schemas use."""
    if "$ref" in schema:
        return _faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return [] if any(not _faults(value, each, root) for each in schema["anyOf"]) else ["anyOf"]
    if "enum" in schema:
        return [] if value in schema["enum"] else ["enum"]
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool)):
        return ["type"]
    found = []
    if isinstance(value, str):
        found += ["minLength"] * (len(value) < schema.get("minLength", 0))
        found += ["maxLength"] * (len(value) > schema.get("maxLength", len(value)))
        found += ["pattern"] * (re.search(schema.get("pattern", ""), value) is None)
    elif isinstance(value, int):
        found += ["minimum"] * (value < schema.get("minimum", value))
        found += ["maximum"] * (value > schema.get("maximum", value))
    elif isinstance(value, list):
        for each in value:
            found += _faults(each, schema["items"], root)
    elif isinstance(value, dict):
        found += ["required"] * (not set(schema.get("required", ())) <= value.keys())
        for name, sub in schema.get("properties", {}).items():
            if name in value:
                found += _faults(value[name], sub, root)
    return found


def test_every_keyword_of_the_schemas_is_one_that_this_test_reads() -> None:
    known = {
        "$schema", "$id", "$defs", "$ref", "title", "description", "type", "properties", "required", "enum", "default",
        "minLength", "maxLength", "pattern", "minimum", "maximum", "format", "items", "maxItems", "anyOf",
        "additionalProperties",
    }  # fmt: skip

    def keywords(schema: Any) -> set[str]:
        if not isinstance(schema, dict):
            return set()
        found = set(schema)
        for name in ("properties", "$defs"):
            for child in schema.get(name, {}).values():
                found |= keywords(child)
        for child in [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", [])]:
            found |= keywords(child)
        return found

    for name, raw in schemas.documents().items():
        if name.endswith(".json"):
            assert keywords(msgspec.json.decode(raw)) <= known, name
