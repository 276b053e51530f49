"""Configuration: one frozen record, read from a TOML file and from the environment.

Theory of operation: the defaults are those of one machine with the embedded broker. A TOML file (named by
``KAOHE_CONFIG``, else ``./kaohe.toml`` when there is one) overrides the defaults, and the environment overrides the
file: the field ``database_url`` is ``KAOHE_DATABASE_URL``, a field of the table ``[security]`` such as
``sasl_mechanism`` is ``KAOHE_SECURITY_SASL_MECHANISM``. A key that nobody knows is an error that names the nearest
one, because a misspelt setting that is silently ignored is found out too late.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kaohe.errors import SettingsError

ENVIRONMENT_PREFIX = "KAOHE_"
CONFIG_VARIABLE = "KAOHE_CONFIG"
DEFAULT_CONFIG = "kaohe.toml"
PARTITIONS_MAX = 1024

PACK_LISTS = ("packs", "shadow_packs")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class KafkaSecurity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to speak to a protected broker. File names are paths on this machine, read when a client connects."""

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    username: str = ""
    password: str = ""
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""

    @property
    def uses_sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        return self.protocol.endswith("SSL")

    def __repr__(self) -> str:
        return f"KafkaSecurity(protocol={self.protocol!r}, sasl_mechanism={self.sasl_mechanism!r})"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured. Durations are in seconds, sizes in records.

    ``payroll_metrics_port`` is where ``kaohe payroll`` shows its figures; 0, the default, is nowhere.
    ``metrics_agents_max`` is how many agents have Prometheus series of their own; 0, the default, is none. ``packs``
    are the rule packs that judge, ``shadow_packs`` versions that judge beside them without effect, ``rules`` the folder
    they lie in (empty: the one that belongs to this program), ``sites`` the time zone of each site that does not keep
    the packs' own.
    """

    broker: str = "127.0.0.1:9092"
    security: KafkaSecurity = KafkaSecurity()
    group_id: str = "kaohe"
    partitions: int = 4
    group_partitions: int = 4
    replication: int = 1
    checkpoint_interval_s: float = 1.0
    checkpoint_records_max: int = 500_000
    session_timeout_s: float = 6.0
    fetch_records_max: int = 10_000
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    payroll_metrics_port: int = 0
    metrics_agents_max: int = 0
    database_url: str = "sqlite:///kaohe.db"
    packs: tuple[str, ...] = ("contact-centre", "front-desk", "logistics-service")
    shadow_packs: tuple[str, ...] = ()
    rules: str = ""
    sites: dict[str, str] = {}

    @property
    def bootstrap(self) -> list[str]:
        """The broker addresses, one by one."""
        return [address.strip() for address in self.broker.split(",") if address.strip()]

    @property
    def state_topic(self) -> str:
        """The changelog of the partition engines' checkpoints. It belongs to the consumer group."""
        return f"{self.group_id}.state"

    @property
    def group_state_topic(self) -> str:
        """The changelog of the group engines' checkpoints. It belongs to the consumer group."""
        return f"{self.group_id}.group-state"


def load_settings(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """The settings in force: defaults, then the TOML file, then the environment.

    Raises SettingsError, in one sentence, for a file that is missing or broken, for an unknown key and for a value
    out of bounds.
    """
    env = os.environ if environ is None else environ
    values = _read_file(env, Path.cwd() if directory is None else directory)
    _overlay_environment(values, env)
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"The configuration cannot be used: {exc}.") from None
    _check(settings)
    return settings


def _read_file(env: Mapping[str, str], directory: Path) -> dict[str, Any]:
    named = env.get(CONFIG_VARIABLE, "")
    path = Path(named) if named else directory / DEFAULT_CONFIG
    if not named and not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(
            f"The configuration file {path} cannot be read ({exc.strerror}); set {CONFIG_VARIABLE} to a TOML file."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"The configuration file {path} is not valid TOML: {exc}.") from None
    _refuse_unknown(values, Settings, str(path), "")
    security = values.get("security")
    if isinstance(security, dict):
        _refuse_unknown(security, KafkaSecurity, str(path), "security.")
    return values


def _refuse_unknown(values: Mapping[str, Any], struct: type[msgspec.Struct], where: str, prefix: str) -> None:
    known = struct.__struct_fields__
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise SettingsError(
                f"{where}: unknown setting '{prefix}{key}'; the nearest valid one is '{prefix}{near[0]}'."
            )


def _overlay_environment(values: dict[str, Any], env: Mapping[str, str]) -> None:
    for field in Settings.__struct_fields__:
        if field not in ("security", "sites") and (text := env.get(f"{ENVIRONMENT_PREFIX}{field.upper()}")):
            values[field] = text.replace(",", " ").split() if field in PACK_LISTS else text
    security = dict(values.get("security", {})) if isinstance(values.get("security", {}), dict) else {}
    for field in KafkaSecurity.__struct_fields__:
        if text := env.get(f"{ENVIRONMENT_PREFIX}SECURITY_{field.upper()}"):
            security[field] = text
    if security:
        values["security"] = security


def _check(settings: Settings) -> None:
    _check_security(settings.security)
    if not settings.bootstrap:
        raise SettingsError("'broker' is empty; give host:port, or several with commas between them.")
    for address in settings.bootstrap:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(
                f"'broker' has '{address}'; give it as host:port, for instance 127.0.0.1:9092."
            )
    bounds: dict[str, tuple[float, float]] = {
        "partitions": (1, PARTITIONS_MAX),
        "group_partitions": (1, PARTITIONS_MAX),
        "replication": (1, 16),
        "checkpoint_interval_s": (0.05, 60),
        "checkpoint_records_max": (1_000, 10_000_000),
        "session_timeout_s": (6, 300),
        "fetch_records_max": (100, 1_000_000),
        "metrics_port": (0, 65535),
        "payroll_metrics_port": (0, 65535),
        "metrics_agents_max": (0, 10_000),
    }
    for field, (low, high) in bounds.items():
        value = getattr(settings, field)
        if not low <= value <= high:
            raise SettingsError(f"'{field}' is {value}; it must lie between {low} and {high}.")
    if not settings.group_id or not all(c.isalnum() or c in "._-" for c in settings.group_id):
        raise SettingsError(
            f"'group_id' is '{settings.group_id}'; use letters, digits, '.', '_' and '-' only."
        )


def _check_security(security: KafkaSecurity) -> None:
    if security.protocol not in PROTOCOLS:
        raise SettingsError(
            f"'security.protocol' is '{security.protocol}'; use one of {', '.join(PROTOCOLS)}."
        )
    if security.uses_sasl and security.sasl_mechanism not in SASL_MECHANISMS:
        raise SettingsError(
            f"'security.sasl_mechanism' is '{security.sasl_mechanism}'; "
            f"with {security.protocol} use one of {', '.join(SASL_MECHANISMS)}."
        )
    if security.uses_sasl and not security.username:
        raise SettingsError(
            f"'security.username' is empty; {security.protocol} needs a user name and a password."
        )
    if security.keyfile and not security.certfile:
        raise SettingsError("'security.keyfile' is set without 'security.certfile'; give both or neither.")
    for field in ("cafile", "certfile", "keyfile"):
        path = getattr(security, field)
        if path and not Path(path).is_file():
            raise SettingsError(f"'security.{field}' names {path}, which is not a file.")
