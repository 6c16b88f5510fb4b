"""The limits of one attempt."""

from __future__ import annotations

import time

import pytest

from bridge.upstream import attempt as module
from bridge.upstream.attempt import Attempt


@pytest.mark.parametrize(
    ("deadline_s", "connect_by_s", "connect_timeout_s", "expected"),
    [(10.0, 40.0, 3.0, 103.0), (2.0, 40.0, 3.0, 102.0), (10.0, 1.0, 3.0, 101.0)],
)
def test_connecting_has_the_shortest_of_three_limits(
    monkeypatch: pytest.MonkeyPatch,
    deadline_s: float,
    connect_by_s: float,
    connect_timeout_s: float,
    expected: float,
) -> None:
    """The deadline, the window and the connect time-out each bound connecting."""
    monkeypatch.setattr(module, "now", lambda: 100.0)
    attempt = Attempt(deadline_s, connect_by_s, connect_timeout_s)
    assert attempt.connect_until == expected
    assert (attempt.until, attempt.leave_until) == (100.0 + deadline_s, 100.0 + connect_by_s)


def test_nothing_is_known_at_first() -> None:
    """A new attempt has sent nothing and met nothing."""
    attempt = Attempt(1.0, 1.0, 1.0)
    assert (attempt.sent, attempt.reused, attempt.oversize, attempt.status) == (False, False, False, None)


def test_clock_counts_suspended_time_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that goes on while the machine sleeps is taken, else the monotonic one."""
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC, raising=False)
    assert module._choose_clock() is not time.monotonic
    assert abs(module._choose_clock()() - time.monotonic()) < 60.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert module._choose_clock() is time.monotonic
