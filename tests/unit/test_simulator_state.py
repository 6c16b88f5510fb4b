"""The state of the simulator, its log and its control endpoint, without a socket."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import NotValid, Simulator, fingerprint
from bridge.simulator.connection import Call, Ended
from bridge.simulator.control import ROUTES, serve_control
from bridge.simulator.journal import Journal
from bridge.simulator.reader import Request, RequestReader
from bridge.simulator.state import State

KEY = "0123456789abcdef0123456789abcdef"
IMAGE = "reportIncorrectImageCaptcha"


class FakeTime:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


class Desk:
    """A state with what calls and the control endpoint need around it; plays their connection, too."""

    base_url = "http://127.0.0.1:1"
    number = calls = 1

    def __init__(self, scenario: dict[str, Any] | None = None) -> None:
        self.time = FakeTime()
        self.state = State(scenario or {}, self.time.monotonic, self.time.wall)

    def send(self, data: bytes) -> None:
        self.sent = data

    def pause(self, seconds: float | None) -> None:
        self.time.now += seconds or 0.0

    def disconnect(self) -> int:
        return 3

    def reset(self) -> None:
        self.state.begin()

    def ask(self, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a control request; return status and value."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = make_request(f"{verb} /_control/{path}", data)
        host: Any = self
        head, _, answer = serve_control(host, request).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(answer)

    def report(self, task_id: int, method: str = IMAGE, key: str = KEY, headers: str = "") -> Call:
        """Bring a report in and play it to its end."""
        return self.call(method, {"clientKey": key, "taskId": task_id}, headers)

    def call(self, method: str, members: dict[str, Any], headers: str = "") -> Call:
        """Bring a call in and play it to its end."""
        request = make_request(f"POST /{method}", json.dumps(members).encode(), headers)
        both: Any = self
        call = Call(both, both, request)
        with suppress(Ended):
            call.play()
        self.state.journal.finish(call.entry, "answered")
        return call

    def spending(self, **members: Any) -> list[dict[str, Any]]:
        """Ask for the figures; return the records that are not empty."""
        self.call("getSpendingStats", {"clientKey": KEY, **members})
        records = json.loads(self.sent.partition(b"\r\n\r\n")[2])["data"]
        return [record for record in records if record["volume"] not in (0, "0")]


def make_request(line: str, body: bytes, headers: str = "") -> Request:
    """Return a request as the reader makes it."""
    reader = RequestReader()
    reader.feed(f"{line} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    request = reader.take()
    assert request is not None
    return request


def test_task_is_created_listed_and_judged() -> None:
    """A created task is answered with its id, listed, and judged with its age."""
    desk = Desk()
    status, task = desk.ask("POST", "tasks", {"kind": "image", "ageSeconds": 61, "clientKey": KEY})
    assert status == 200
    assert task["endTime"] == desk.time.wall() - 61
    assert task["account"] == fingerprint(KEY)
    assert desk.ask("GET", f"tasks?taskId={task['taskId']}")[1]["tasks"] == [task]
    assert desk.report(task["taskId"]).entry["reason"] == "late"


def test_lists_are_created_together_or_not_at_all() -> None:
    """One bad member of a list stops the whole list."""
    desk = Desk()
    good = {"kind": "image", "taskId": 5}
    status, value = desk.ask("POST", "tasks", {"tasks": [good, {"kind": "x"}]})
    assert (status, value["pointer"]) == (400, "/tasks/1/kind")
    assert desk.ask("GET", "tasks")[1]["tasks"] == []
    assert len(desk.ask("POST", "tasks", {"tasks": [good, {"kind": "hcaptcha"}]})[1]["tasks"]) == 2


def test_faults_are_armed_listed_and_cleared() -> None:
    """A fault is answered with its number, listed with the time left, and disarmed by it."""
    desk = Desk()
    armed = desk.ask("POST", "faults", {"fault": "html", "taskId": 7, "forSeconds": 10})[1]
    desk.time.now += 4
    listed = desk.ask("GET", "faults")[1]["faults"]
    assert [(fault["id"], fault["endsInSeconds"]) for fault in listed] == [(armed["id"], 6.0)]
    assert desk.report(7).entry["fault"] == "html"
    assert desk.ask("DELETE", f"faults?id={armed['id']}") == (200, {"cleared": 1})
    desk.ask("POST", "faults", {"faults": [{"fault": "html", "forSeconds": 1}]})
    desk.time.now += 2
    assert desk.ask("GET", "faults")[1] == {"faults": []}


def test_accounts_and_settings_change_the_verdict() -> None:
    """States of accounts and settings take effect at once and are shown without keys."""
    desk = Desk()
    desk.ask("POST", "accounts", {"accounts": [{"clientKey": KEY, "state": "suspended"}]})
    assert desk.report(1).entry["errorId"] == 55
    shown = desk.ask("GET", "accounts")[1]
    assert shown == {"accounts": [{"account": fingerprint(KEY), "state": "suspended"}]}
    settings = desk.ask("POST", "settings", {"otherKeys": "unknown", "auto": False})[1]
    assert desk.ask("GET", "settings") == (200, settings)
    assert (settings["otherKeys"], settings["auto"], settings["windowSeconds"]) == ("unknown", False, 60.0)
    assert desk.report(2, key="k" * 32).entry["errorId"] == 1


def test_clock_skew_moves_date_and_window() -> None:
    """A clock that runs ahead shows in the Date header and makes tasks older."""
    desk = Desk()
    task = desk.ask("POST", "tasks", {"kind": "image"})[1]
    before = desk.state.date()
    desk.ask("POST", "settings", {"clockSkewSeconds": 100})
    assert desk.state.date() != before
    assert desk.report(task["taskId"]).entry["reason"] == "late"


def test_log_is_the_truth() -> None:
    """Deliveries, entries and counters say the same about a task reported twice."""
    desk = Desk()
    desk.report(7)
    desk.report(7)
    desk.report(8)
    assert desk.ask("GET", "deliveries?taskId=7")[1]["deliveries"] == [
        {"taskId": 7, "account": fingerprint(KEY), "delivered": 2, "taken": 1, "told": 1}
    ]
    first = desk.ask("GET", "log?limit=1")[1]
    assert first["next"] == first["entries"][0]["seq"]
    rest = desk.ask("GET", f"log?since={first['next']}")[1]["entries"]
    assert [(entry["taskId"], entry["taken"], entry["reason"]) for entry in rest] == [
        (7, False, "duplicate"),
        (8, True, "taken"),
    ]
    assert [entry["bodyKeys"] for entry in rest] == [["clientKey", "taskId"]] * 2
    counters = desk.ask("GET", "counters")[1]
    assert (counters["requests"], counters["taken"], counters["refused"]) == (3, 2, 1)
    assert (counters["inFlight"], counters["maxInFlight"]) == (0, 1)


def test_log_never_holds_the_key() -> None:
    """A key in the head is masked and flagged."""
    desk = Desk()
    desk.report(7, headers=f"X-Key: {KEY}\r\n")
    desk.report(8, method=f"{IMAGE}/{KEY}")
    desk.report(9)
    entries = desk.state.journal.select()
    assert KEY not in json.dumps(entries)
    assert [entry["keyInHead"] for entry in entries] == [True, True, False]
    assert ["X-Key", "***"] in entries[0]["headers"]


def test_reset_starts_over_with_the_scenario() -> None:
    """A reset forgets what happened and applies the scenario again; numbers of entries go on."""
    desk = Desk({"tasks": [{"taskId": 7, "kind": "hcaptcha"}], "settings": {"auto": False}})
    desk.report(7)
    desk.ask("POST", "faults", {"fault": "html"})
    assert desk.ask("POST", "reset") == (200, {"reset": True})
    assert desk.state.list("faults") == []
    assert desk.state.journal.select() == []
    assert desk.ask("GET", "counters")[1]["requests"] == 0
    call = desk.report(7, "reportIncorrectHcaptcha")
    assert (call.entry["taken"], call.entry["seq"]) == (True, 2)
    assert desk.report(8).entry["reason"] == "no_such_task"


def test_log_and_tallies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last entries and tallies are kept, and what was dropped is counted."""
    monkeypatch.setattr("bridge.simulator.journal.MAX_ENTRIES", 3)
    monkeypatch.setattr("bridge.simulator.journal.MAX_TALLIES", 3)
    journal = Journal(lambda: 0.0, lambda: 0.0)
    for number in range(5):
        journal.finish(journal.begin(1, number), "answered")
        journal.deliver("a", number)
    assert journal.counters["forgottenEntries"] == 2
    assert len(journal.select()) == len(journal.deliveries()) == 3


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404),
        ("DELETE", "tasks", None, 405),
        ("POST", "tasks", b"{", 400),
        ("POST", "tasks", None, 400),
        ("POST", "tasks", [], 400),
        ("POST", "settings", {"x": 1}, 400),
        ("POST", "accounts", {"state": "ok"}, 400),
        ("POST", "reset", {"x": 1}, 400),
        ("GET", "log?since=-1", None, 400),
        ("GET", "log?limit=0", None, 400),
        ("GET", "log?x=1", None, 400),
        ("DELETE", "faults?taskId=7", None, 400),
        ("GET", "tasks?id=7", None, 400),
        ("GET", "counters?since=1", None, 400),
        ("POST", "tasks?taskId=7", {"kind": "image"}, 400),
        ("POST", "disconnect", {"connection": 1}, 400),
        ("GET", "settings", {"auto": False}, 400),
        ("DELETE", "faults", [7], 400),
    ],
)
def test_bad_control_call_is_refused(verb: str, path: str, body: Any, status: int) -> None:
    """What the control endpoint does not know is refused with a sentence."""
    answer = Desk().ask(verb, path, body)
    assert answer[0] == status
    assert answer[1]["error"]


def test_every_control_path_is_listed_and_documented() -> None:
    """The index and the documentation list every call, and each without a body answers JSON."""
    desk = Desk()
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert all(f"| `{verb} /_control/{path}` |" in page for verb, path in ROUTES)
    paths = desk.ask("GET", "")[1]["paths"]
    assert paths == sorted(f"{verb} /_control/{path}" for verb, path in ROUTES)
    for verb, path in ROUTES:
        assert desk.ask(verb, path)[0] in (200, 400)
    assert desk.ask("POST", "disconnect")[1] == {"closed": 3}


@pytest.mark.parametrize("auto", [True, False])
def test_first_call_only_ids_break_once(auto: bool) -> None:
    """A magic id of the second range breaks its first call; then it has a task, whatever other ids have."""
    desk = Desk({"settings": {"auto": auto}})
    assert desk.report(9_000_000_000_001_514).entry["fault"] == "html"
    assert desk.report(9_000_000_000_001_514).entry["reason"] == "taken"


@pytest.mark.parametrize(
    ("number", "method", "reason"),
    [
        (1, IMAGE, "late"),
        (2, IMAGE, "duplicate"),
        (3, IMAGE, "wrong_kind"),
        (3, "reportIncorrectRecaptcha", "wrong_kind"),
        (3, "reportCorrectRecaptcha", "wrong_kind"),
        (3, "reportIncorrectHcaptcha", "wrong_kind"),
        (4, IMAGE, "language"),
        (5, IMAGE, "ended_in_error"),
        (6, IMAGE, "other_account"),
        (7, IMAGE, "no_such_task"),
        (8, IMAGE, "no_such_task"),
        (9, "reportCorrectRecaptcha", "ignored"),
        (9, "reportIncorrectRecaptcha", "taken"),
        (10, IMAGE, "taken"),
    ],
)
def test_situations_meet_their_rule(number: int, method: str, reason: str) -> None:
    """Each situation is judged by the rule that it is made for."""
    desk = Desk()
    call = desk.report(9_000_000_000_003_000 + number, method)
    assert call.entry["reason"] == reason
    assert call.entry["taken"] is (reason in ("taken", "ignored"))
    spelled = json.loads(call.judge()).get("errorCode", "")
    assert ("CAPTCHA_ID" in spelled) is (number == 8 or (number == 3 and "Recaptcha" in method))


@pytest.mark.parametrize("number", [16, 5016, 3153])
@pytest.mark.parametrize(
    ("method", "spelling"),
    [
        (IMAGE, "CAPCHA"),
        ("reportIncorrectRecaptcha", "CAPTCHA"),
        ("reportCorrectRecaptcha", "CAPTCHA"),
        ("reportIncorrectHcaptcha", "CAPCHA"),
        ("getSpendingStats", "CAPCHA"),
    ],
)
def test_magic_sixteen_is_spelled_by_the_method(number: int, method: str, spelling: str) -> None:
    """A magic error 16 has the spelling of the method's page, unless the setting chooses one for all."""
    chosen = "CAPTCHA" if spelling == "CAPCHA" else "CAPCHA"
    for setting, expected in ((None, spelling), (chosen, chosen)):
        desk = Desk({"settings": {"spelling": setting}} if setting else {})
        desk.report(9_000_000_000_000_000 + number, method)
        told = json.loads(desk.sent.partition(b"\r\n\r\n")[2])
        assert (told["errorId"], told["errorCode"]) == (16, f"ERROR_NO_SUCH_{expected}_ID")


def test_magic_can_be_switched_off() -> None:
    """Without the setting a magic id is an ordinary one."""
    desk = Desk({"settings": {"magic": False}})
    assert desk.report(9_000_000_000_000_021).entry["reason"] == "taken"
    assert desk.report(9_000_000_000_003_001).entry["reason"] == "taken"


def test_python_methods_mirror_the_endpoint() -> None:
    """The methods take the same fields in snake_case and refuse the same."""
    simulator = Simulator()
    task_id = simulator.add_task("image", age_seconds=5, ended_in_error=True, client_key=KEY)
    assert simulator.tasks(task_id)[0]["endedInError"] is True
    fault_id = simulator.add_fault("status", task_id=task_id, retry_after_seconds=3, for_seconds=5)
    assert simulator.state.list("faults")[0]["retryAfterSeconds"] == 3
    simulator.set_spending("Recaptcha Proxyless", 80, hours_ago=1, client_key=KEY)
    assert simulator.state.list("spending")[0]["volume"] == 80
    assert simulator.clear_faults(fault_id) == 1
    assert simulator.set(clock_skew_seconds=5)["clockSkewSeconds"] == 5
    with pytest.raises(NotValid, match="kind"):
        simulator.add_task("imaginary")
    with pytest.raises(NotValid, match="not known"):
        simulator.add_fault("hang", secondz=1)
    simulator.stop()
    simulator.stop()


def test_only_loopback_is_served() -> None:
    """An address that others could reach is refused."""
    with pytest.raises(ValueError, match="loopback"):
        Simulator(host="0.0.0.0")


# --- getSpendingStats -------------------------------------------------------------------------


def test_figures_are_set_by_hour_and_queue() -> None:
    """Figures set at the endpoint are told for their hours and queue, and summed without a queue."""
    desk = Desk()
    queue = "Recaptcha Proxyless"
    told = desk.ask("POST", "spending", {"queue": queue, "volume": 50, "hoursAgo": 2, "hours": 2})[1]
    desk.ask("POST", "spending", {"spending": [{"queue": "English ImageToText", "volume": 7, "hoursAgo": 2}]})
    first, second = desk.spending(queue=queue)
    assert (first["volume"], first["money"], second["volume"]) == (50, 0.1, 50)
    assert (told["dateFrom"], told["hours"]) == (first["dateFrom"], 2)
    assert second["dateFrom"] - first["dateFrom"] == 3600
    assert [record["volume"] for record in desk.spending()] == [50, 57]
    assert desk.spending(queue="No such queue") == []
    assert len(desk.ask("GET", "spending")[1]["spending"]) == 3


def test_figures_of_an_account_are_its_own() -> None:
    """Figures set for one key are not told to another, and win over those for whoever asks."""
    desk = Desk()
    desk.ask("POST", "spending", {"queue": "Other", "volume": 3})
    desk.ask("POST", "spending", {"queue": "Other", "volume": 9, "clientKey": KEY, "money": 2})
    assert [(record["volume"], record["money"]) for record in desk.spending()] == [(9, 2)]
    assert [record["volume"] for record in desk.spending(clientKey="k" * 32)] == [3]
    assert KEY not in json.dumps(desk.ask("GET", "spending")[1])


def test_tasks_that_exist_are_counted() -> None:
    """Created and fresh tasks count in the queue of their kind, until figures are set in their place."""
    desk = Desk()
    for task in ({"kind": "image"}, {"kind": "image", "languagePool": "rn"}, {"kind": "recaptcha_v2"}):
        desk.ask("POST", "tasks", task)
    desk.report(7)
    desk.report(8, key="k" * 32)
    counted = {
        queue: [record["volume"] for record in desk.spending(queue=queue)]
        for queue in ("English ImageToText", "Russian ImageToText", "Recaptcha Proxyless", "Recaptcha V3")
    }
    assert list(counted.values()) == [[2], [1], [1], []]
    desk.ask("POST", "spending", {"queue": "English ImageToText", "volume": 0})
    assert desk.spending(queue="English ImageToText") == []


def test_call_for_figures_is_in_the_log_and_takes_nothing() -> None:
    """A call that reads figures is logged with its reason and is no report."""
    desk = Desk()
    entry = desk.call("getSpendingStats", {"clientKey": KEY, "queue": "Other"}).entry
    assert (entry["reason"], entry["errorId"], entry["taken"]) == ("figures", 0, False)
    counters = desk.ask("GET", "counters")[1]
    assert (counters["requests"], counters["taken"], counters["refused"]) == (1, 0, 0)
    assert desk.ask("GET", "deliveries")[1] == {"deliveries": []}


def test_fault_can_be_tied_to_the_figures() -> None:
    """A fault of the method breaks calls for figures and no report."""
    desk = Desk({"faults": [{"fault": "rate_limit", "method": "getSpendingStats"}]})
    assert desk.call("getSpendingStats", {"clientKey": KEY}).entry["fault"] == "rate_limit"
    assert desk.report(7).entry["taken"]
