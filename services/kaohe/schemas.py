"""The published form of what comes in and goes out: JSON Schema for each message, and one AsyncAPI document.

Theory of operation. The structs in ``events`` and ``decisions`` are the only source. ``documents`` renders them as
files, ``write`` puts those into ``schemas/``, and a test fails when the two differ. The result depends on the structs
alone: the same structs give the same bytes, so a difference in version control is a change of the interface.

``python -m kaohe.schemas`` writes the files; with ``--check`` it only says which ones differ.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from kaohe.decisions import Alert, Decision, Grade, MetricValue, Reject, Settlement, SettlementBatch
from kaohe.events import DERIVED, ENVELOPES, PAYLOADS

FOLDER = Path(__file__).resolve().parents[2] / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
OUTPUTS: dict[str, type[msgspec.Struct]] = {
    "decision": Decision,
    "alert": Alert,
    "grade": Grade,
    "settlement": Settlement,
    "settlement_batch": SettlementBatch,
    "metric": MetricValue,
    "reject": Reject,
}
"""What goes out, by the name of its file."""

SENT = tuple(tag for tag in ENVELOPES if tag not in DERIVED)
"""Event types that sources send."""

CHANNELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kaohe.events": (
        "What happened, partitioned by subject; clock ticks and pack activations in every partition.",
        (),
    ),
    "kaohe.decisions": ("The ledger's entries: every revision of every decision.", ("decision",)),
    "kaohe.alerts": ("Alerts, firing and resolved.", ("alert",)),
    "kaohe.grades": ("Scores and grades, each time one of them changes.", ("grade",)),
    "kaohe.settlements": (
        "Approved settlement statements by agent, and every state of their batches.",
        ("settlement", "settlement_batch"),
    ),
    "kaohe.partials": ("What partitions counted for groups, from worker to worker.", ("partial",)),
    "kaohe.rejects": ("Records that could not be used, with the reason.", ("reject",)),
}
"""Topic to what it is for and the messages in it; no message named means every event."""

PARTIAL = {
    "title": "Partial",
    "description": (
        "What one partition counted for groups (teams, queues, sites) in a minute of log time, in MessagePack. Its "
        "fields belong to the worker's version and are no interface."
    ),
    "type": "object",
}


def schema_of(struct: type[msgspec.Struct], urn: str) -> dict[str, Any]:
    """The JSON Schema of one struct as a document of its own. Unknown members are allowed: fields get added."""
    (root,), components = msgspec.json.schema_components((struct,), ref_template="#/$defs/{name}")
    name = root["$ref"].rpartition("/")[2]
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    schema = components.pop(name)
    document = {"$schema": DIALECT, "$id": urn, **schema}
    if components:
        document["$defs"] = dict(sorted(components.items()))
    return document


def event_schema(tag: str) -> dict[str, Any]:
    """The JSON Schema of one event type, envelope and data."""
    document = schema_of(ENVELOPES[tag], f"urn:kaohe:schema:event:{tag}")
    document["title"] = tag
    document["description"] = _words(PAYLOADS[tag])
    return document


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the topics."""
    messages: dict[str, Any] = {tag: _event_message(tag) for tag in SENT}
    for name, struct in OUTPUTS.items():
        if name != "metric":  # written to files, not sent
            messages[name] = _output_message(name, _words(struct), {"$ref": f"./outputs/{name}.json"})
    messages["partial"] = {
        **_output_message("partial", "Internal to the workers.", PARTIAL), "contentType": "application/msgpack",
    }  # fmt: skip
    channels = {}
    operations = {}
    for topic, (purpose, names) in CHANNELS.items():
        key = topic.replace(".", "_")
        chosen = names or SENT
        channels[key] = {
            "address": topic,
            "description": purpose,
            "messages": {_key(name): {"$ref": f"#/components/messages/{_key(name)}"} for name in chosen},
        }
        actions = {"kaohe.events": ("receive",), "kaohe.partials": ("send", "receive")}.get(topic, ("send",))
        for action in actions:
            operations[f"{action}_{key}"] = {"action": action, "channel": {"$ref": f"#/channels/{key}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Kaohe",
            "version": "1.0.0",
            "description": "Events of a contact centre in; decisions, alerts, grades and rejects out. Generated.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": {_key(name): message for name, message in messages.items()}},
    }


def _key(name: str) -> str:
    """A name as a member of the document: dots are not allowed in all tools."""
    return name.replace(".", "_")


def _event_message(tag: str) -> dict[str, Any]:
    return {
        "name": tag,
        "title": tag,
        "summary": _words(PAYLOADS[tag]),
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"./events/{tag}.json"},
    }


def _output_message(name: str, words: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": words,
        "contentType": "application/json",
        "payload": payload,
    }


def _words(struct: type[msgspec.Struct]) -> str:
    """The first paragraph of a struct's description on one line."""
    text = (struct.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(text.split())


def documents() -> dict[str, bytes]:
    """Every file of ``schemas/`` by its path inside that folder."""
    files: dict[str, bytes] = {}
    for tag in SENT:
        files[f"events/{tag}.json"] = _json(event_schema(tag))
    for name, struct in OUTPUTS.items():
        files[f"outputs/{name}.json"] = _json(schema_of(struct, f"urn:kaohe:schema:output:{name}"))
    files["asyncapi.yaml"] = _yaml(asyncapi())
    return files


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def _yaml(document: dict[str, Any]) -> bytes:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000  # no line breaks of its own: they would move with every word
    yaml.allow_unicode = True
    stream = io.BytesIO()
    stream.write(
        b"# Generated by `make schemas` from the structs in services/kaohe; changes here are lost.\n"
    )
    yaml.dump(document, stream)
    return stream.getvalue()


def differences(folder: Path) -> list[str]:
    """The files in ``folder`` that are missing, different or left over, by their paths inside it."""
    wanted = documents()
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path) -> list[str]:
    """Make ``folder`` hold exactly ``documents``; the paths that changed."""
    changed = differences(folder)
    wanted = documents()
    for name in changed:
        path = folder / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted[name])
        else:
            path.unlink()
    return changed


def main(arguments: Sequence[str]) -> int:
    """Write or check the files; 1 when a check finds a difference, 2 for an unknown argument."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m kaohe.schemas [--check]\n")
        return 2
    if arguments:
        changed = differences(FOLDER)
        for name in changed:
            sys.stderr.write(f"schemas/{name} differs from the structs; run `make schemas`\n")
        return 1 if changed else 0
    for name in write(FOLDER):
        sys.stdout.write(f"schemas/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
