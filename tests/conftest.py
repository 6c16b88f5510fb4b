"""What every test has: an environment of its own, and the real process on demand."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.authority import Authority
from tests.pgserver import PgServer, serve
from tests.process import BridgeProcess
from tests.shaky_store import close_all

# A deadline per example would fail on a busy machine, and slowness is not what properties are about.
settings.register_profile(
    "check", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("fuzz", settings.get_profile("check"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))

# Children inherit what is ignored, and below nohup every bridge would rightly ignore the SIGHUP of a test.
# They do not inherit what is heard, and this process does not end either.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failed command said, beside that it failed."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, subprocess.CalledProcessError):
        for said in (error.stdout, error.stderr):
            if said:
                text = said.decode(errors="replace") if isinstance(said, bytes) else said
                report.sections.append(("What the command said", text))
    return report


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give each test an empty home, and take away every variable that changes the program's behaviour."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("ANTICAPTCHA_", "REPORT_BRIDGE_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSLKEYLOGFILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _memory_ledgers() -> Iterator[None]:
    """Close the ledgers in memory that a test has opened."""
    yield
    close_all()


@pytest.fixture
def bridge_process(clean_environment: Path) -> Iterator[Callable[..., BridgeProcess]]:
    """Start bridges: called with a command line it returns a `BridgeProcess`, which ends with the test."""
    with ExitStack() as stack:

        def start(*words: str, **kwargs: Any) -> BridgeProcess:
            kwargs.setdefault("home", clean_environment)
            return stack.enter_context(BridgeProcess(*words, **kwargs))

        yield start


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that clients are told to trust."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """One PostgreSQL server for all tests of a worker; each test makes a database of its own."""
    yield from serve()
