"""Configuration: defaults, file, environment, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.errors import SettingsError
from kaohe.settings import KafkaSecurity, Settings, load_settings


def config(folder: Path, text: str) -> Path:
    path = folder / "kaohe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_it_is_one_machine_with_the_embedded_broker(tmp_path: Path) -> None:
    found = load_settings({}, tmp_path)
    assert found == Settings()
    assert found.broker == "127.0.0.1:9092"
    assert found.database_url.startswith("sqlite:")


def test_the_file_in_the_folder_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    config(tmp_path, 'broker = "kafka-1:9092,kafka-2:9092"\npartitions = 8\n')
    found = load_settings({"KAOHE_PARTITIONS": "16", "KAOHE_METRICS_PORT": "9999"}, tmp_path)
    assert found.bootstrap == ["kafka-1:9092", "kafka-2:9092"]
    assert (found.partitions, found.metrics_port) == (16, 9999)


def test_the_file_named_by_the_environment_is_read(tmp_path: Path) -> None:
    path = config(tmp_path, "checkpoint_interval_s = 0.5")
    assert load_settings({"KAOHE_CONFIG": str(path)}, tmp_path / "elsewhere").checkpoint_interval_s == 0.5


def test_security_comes_from_its_table_and_from_the_environment(tmp_path: Path) -> None:
    config(tmp_path, '[security]\nprotocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nusername = "kaohe"\n')
    found = load_settings({"KAOHE_SECURITY_PASSWORD": "open sesame"}, tmp_path).security
    assert found == KafkaSecurity("SASL_SSL", "PLAIN", "kaohe", "open sesame")
    assert found.uses_sasl
    assert found.uses_tls
    assert "sesame" not in repr(found)


@pytest.mark.parametrize(
    ("text", "environ", "sentence"),
    [
        ("partition = 4", {}, "unknown setting 'partition'; the nearest valid one is 'partitions'"),
        (
            "[security]\nuser = 'x'",
            {},
            "unknown setting 'security.user'; the nearest valid one is 'security.username'",
        ),
        ("partitions = ", {}, "is not valid TOML"),
        ("partitions = 0", {}, "'partitions' is 0; it must lie between 1 and 1024"),
        ("", {"KAOHE_PARTITIONS": "many"}, "The configuration cannot be used"),
        ("", {"KAOHE_BROKER": "localhost"}, "'broker' has 'localhost'; give it as host:port"),
        ("", {"KAOHE_SESSION_TIMEOUT_S": "2"}, "'session_timeout_s' is 2.0; it must lie between 6 and 300"),
        ("", {"KAOHE_GROUP_ID": "a b"}, "'group_id' is 'a b'"),
        ("", {"KAOHE_SECURITY_PROTOCOL": "TLS"}, "'security.protocol' is 'TLS'; use one of PLAINTEXT, SSL"),
        ("", {"KAOHE_SECURITY_PROTOCOL": "SASL_SSL"}, "'security.sasl_mechanism' is ''"),
        (
            "",
            {"KAOHE_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAOHE_SECURITY_SASL_MECHANISM": "PLAIN"},
            "'security.username' is empty",
        ),
        (
            "",
            {"KAOHE_SECURITY_CAFILE": "/nowhere/ca.pem"},
            "'security.cafile' names /nowhere/ca.pem, which is not a file",
        ),
        (
            "",
            {"KAOHE_CONFIG": "/nowhere/kaohe.toml"},
            "The configuration file /nowhere/kaohe.toml cannot be read",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_would_be_right(
    tmp_path: Path, text: str, environ: dict[str, str], sentence: str
) -> None:
    config(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_shadows_are_a_list_like_packs(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).shadow_packs == ()
    named = load_settings({"KAOHE_SHADOW_PACKS": "drafts/front-desk, drafts/reception"}, tmp_path)
    assert named.shadow_packs == ("drafts/front-desk", "drafts/reception")
    config(tmp_path, 'shadow_packs = ["drafts/front-desk"]')
    assert load_settings({}, tmp_path).shadow_packs == ("drafts/front-desk",)
