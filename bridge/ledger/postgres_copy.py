"""A ledger on a server as one end of a copy. Imported by the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.redact import Secret
from bridge.ledger.copying import Bundle
from bridge.ledger.postgres_batch import pairs as account_arrays
from bridge.ledger.postgres_link import Rows, Statement, connect
from bridge.ledger.postgres_rows import (
    QUERIES,
    array,
    certain,
    dump,
    named_row,
    one_pause,
    pause_columns,
    report_columns,
)
from bridge.ledger.postgres_schema import VERSION, identify, migrate
from bridge.ledger.postgres_session import translated
from bridge.ledger.postgres_trouble import trouble
from bridge.ledger.trouble import NEWER, READONLY

_COPIED: Final = "copied_from_"
WAIT_S: Final = 60.0
"""Longest wait for one step of a copy."""


class PostgresEnd:
    """A database as one end of a copy; fits `bridge.ledger.copying.End`.

    Args:
        url: its address.
        password: one that the usual sources do not have.
        make: True to make the tables if they are missing.
    """

    def __init__(self, url: str, password: Secret | None, make: bool) -> None:
        self._link = connect(url, password)
        settings = {"search_path": "report_bridge, pg_temp", "statement_timeout": f"{WAIT_S:.0f}s"}
        self._ask((QUERIES["set_up"], [dump(settings)]))
        with translated():
            found = identify(self._link)
            if found.version < VERSION and make:
                found = migrate(self._link)
        if found.version == 0:
            raise trouble(READONLY)
        if found.is_newer:
            raise trouble(NEWER)
        ((secret,),) = self._ask((QUERIES["secret"], []))
        self.secret = bytes.fromhex(certain(secret))
        self._account_ids: dict[tuple[str, str], int] = {}

    def _ask(self, *statements: Statement) -> Rows:
        """Run statements in one round trip; the rows of the last."""
        with translated():
            return self._link.run(statements, WAIT_S)[-1]

    def _change(self, *statements: Statement) -> None:
        try:
            self._ask((QUERIES["begin"], []), *statements, (QUERIES["commit"], []))
        except BaseException:
            if not self._link.is_lost and not self._link.is_idle:
                self._ask((QUERIES["roll_back"], []))
            raise

    def count(self) -> int:
        """How many reports there are."""
        return int(certain(self._ask((QUERIES["count_reports"], []))[0][0]))

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return self._ask((QUERIES["is_at_work"], []))[0][0] == b"t"

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""
        rows = self._ask((QUERIES["read_on"], [str(after_seq).encode(), str(limit).encode()]))
        stories: dict[int, list[tuple[int, float, str, str]]] = {}
        numbers = array(int(certain(row[0])) for row in rows)
        for report, nth, at, name, data in self._ask((QUERIES["stories"], [numbers])):
            event = (int(certain(nth)), float(certain(at)), certain(name), certain(data))
            stories.setdefault(int(certain(report)), []).append(event)
        bundles = []
        for values in rows:
            endpoint, account = certain(values[-2]), certain(values[-1])
            row = named_row(values)
            finished_at = None if values[22] is None else float(values[22])
            columns = report_columns(row, 0, finished_at, 0, values[24] == b"t")
            columns |= {"endpoint": endpoint, "account": account, "detail": row.detail}
            bundles.append(Bundle(columns, stories.get(row.seq, [])))
        return bundles

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""
        pauses: list[Mapping[str, Any]] = []
        for values in self._ask((QUERIES["all_pauses"], [])):
            columns = pause_columns(one_pause(values), certain(values[0]), 0)
            pauses.append({**columns, "recent": json.dumps(columns["recent"], separators=(",", ":"))})
        return pauses

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here."""
        found = self._ask((QUERIES["get_meta"], [(_COPIED + source).encode()]))
        return int(certain(found[0][0])) if found else None

    def begin(self, source: str, secret: bytes) -> None:
        """Take over the secret of a source."""
        self._change((QUERIES["set_secret"], [secret.hex().encode()]), self._note(source, 0))

    def write(self, source: str, bundles: Sequence[Bundle], position: int) -> None:
        """Store reports with their stories, and how far that goes, in one commit."""
        names = {(b.columns["endpoint"], b.columns["account"]): None for b in bundles}
        pairs = account_arrays(name for name in names if name not in self._account_ids)
        for number, endpoint, account in self._ask(
            (QUERIES["add_accounts"], pairs), (QUERIES["find_accounts"], pairs)
        ):
            self._account_ids[certain(endpoint), certain(account)] = int(certain(number))
        rows = []
        events = []
        for columns, story in bundles:
            number_of_account = self._account_ids[columns["endpoint"], columns["account"]]
            seq = columns["seq"]
            revision = max((nth for nth, *_ in story), default=0)
            rows.append(
                {
                    **columns,
                    "account_id": number_of_account,
                    "revision": revision,
                    "detail": columns["detail"] or None,
                }
            )
            events += [
                {"report": seq, "nth": nth, "at_wall": at, "name": name, "data": json.loads(data)}
                for nth, at, name, data in story
            ]
        self._change(
            (QUERIES["add_reports"], [dump(rows), str(len(rows)).encode()]),
            (QUERIES["add_events"], [dump(events)]),
            (QUERIES["skip_numbers"], [str(position).encode()]),
            self._note(source, position),
        )

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""
        rows = [{**pause, "recent": json.loads(pause["recent"]), "revision": 1} for pause in pauses]
        self._change((QUERIES["save_pauses"], [dump(rows), str(len(rows)).encode()]), self._note(source, -1))

    def _note(self, source: str, position: int) -> Statement:
        return QUERIES["set_meta"], [(_COPIED + source).encode(), str(position).encode()]

    def close(self) -> None:
        """Let go of the session."""
        self._link.close()
