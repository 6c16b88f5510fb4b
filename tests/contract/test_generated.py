"""Generated files are what their sources say, and the generator refuses what it cannot carry."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bridge import __version__
from bridge.core.errors import pause_rules, rows
from bridge.core.resources import load_json
from bridge.reports.advice import SETTLING_S
from bridge.rpc.discovery import methods
from scripts import generate, generate_advice, generate_errors, generate_go, generate_typescript
from scripts.generate_model import (
    Alias,
    Call,
    Enum,
    Field,
    Model,
    Reader,
    Struct,
    TaskType,
    Type,
    Unsupported,
    load_model,
)

ROOT = Path(__file__).resolve().parents[2]


def test_no_generated_file_has_drifted() -> None:
    """Each generated file is, byte for byte, what the generator would write now."""
    assert generate.drifted() == []


def test_command_checks_and_writes_nothing() -> None:
    """The command ends well where nothing has drifted."""
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tempfile.gettempdir())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_and_changed_files_are_written_again(tmp_path: Path) -> None:
    """A missing or changed file is named, and written once."""
    assert generate.drifted(tmp_path) == list(generate.TARGETS)
    assert generate.write(tmp_path) == list(generate.TARGETS)
    assert generate.write(tmp_path) == []
    changed = tmp_path / "docs" / "errors.md"
    changed.write_bytes(changed.read_bytes().replace(b"\n", b"\r\n"))
    assert generate.drifted(tmp_path) == ["docs/errors.md"]


def test_command_names_what_has_drifted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A drifted file is named and makes the check fail; writing it succeeds."""
    monkeypatch.setattr(generate, "drifted", lambda: ["docs/errors.md"])
    assert generate.main(["--check"]) == 1
    assert "docs/errors.md: has drifted" in capsys.readouterr().out
    monkeypatch.setattr(generate, "write", lambda: ["docs/errors.md"])
    assert generate.main([]) == 0
    assert "docs/errors.md: written" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(generate.TARGETS))
def test_generated_files_say_so_at_their_start(name: str) -> None:
    """Nobody edits a generated file by mistake."""
    start = (ROOT / name).read_text(encoding="utf-8")[:200]
    assert "scripts/generate.py" in start
    assert "do not edit" in start.lower()


# --- OpenRPC ---------------------------------------------------------------------------------


def test_openrpc_document_is_of_this_version() -> None:
    """The document names the program's version."""
    assert load_json("openrpc.json")["info"]["version"] == __version__


# --- docs/errors.md --------------------------------------------------------------------------


def test_every_row_has_its_own_anchor() -> None:
    """Each kind and each pause rule has one heading, and every link leads to a heading."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    assert {row.kind for row in rows()} | set(pause_rules()) <= set(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors)


def test_links_of_the_protocol_page_lead_to_headings() -> None:
    """Links from docs/protocol.md to itself and to docs/errors.md lead somewhere."""
    pages = {
        name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("protocol.md", "errors.md")
    }
    anchors = {
        name: {
            re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        for name, text in pages.items()
    }
    for page, text in pages.items():
        for target, anchor in re.findall(r"\]\(([a-z]+\.md)?#([^)]+)\)", text):
            assert anchor in anchors[target or page], f"{page}: {target}#{anchor}"


def test_errors_page_tells_codes_pauses_and_advice() -> None:
    """A section has what a reader of a log needs to know."""
    text = generate_errors.render()
    section = text[text.index("### no_such_captcha") : text.index("### empty_comment")]
    for words in (
        "- Code: 16",
        "`ERROR_NO_SUCH_CAPTCHA_ID`",
        "`refused`",
        "(#quality)",
        "- Cause:",
        "- Advice:",
    ):
        assert words in section
    assert "after 30 min, 2 times as long after each failed probe, at most 24 h" in text
    assert "3 within 60 s of" in text
    assert "after 60 s, or after Retry-After if that is longer, at most 10 min" in text
    assert "by a person (`bridge.resume`), or with another key" in text


def test_advice_page_tells_when_few_tasks_is_silent() -> None:
    """Who has just begun to note tasks reads there for how long nothing is foretold from them."""
    text = " ".join(generate_advice.render().split())
    assert f"`few_tasks` says nothing in the first {SETTLING_S / 3600:.0f} hours after the first note" in text


# --- client languages ------------------------------------------------------------------------


def test_clients_get_every_method_kind_and_code() -> None:
    """Both languages have all methods, all kinds and all codes."""
    typescript = generate_typescript.render(load_model())
    go = generate_go.render(load_model())
    for method in methods():
        assert f'  "{method.name}": {{ params:' in typescript
        assert f'= "{method.name}"\n' in go
    for row in rows():
        if row.section in ("wire", "upstream"):
            code = row.code or row.error_id
            assert f"  {row.kind}: {{ code: {'null' if code is None else code}, " in typescript
            assert f'= "{row.kind}"\n' in go
            assert code is None or re.search(rf"\tCode{generate_go.go_name(row.kind)} += {code}\n", go)


def test_task_types_have_the_methods_that_fit_them() -> None:
    """Each name of the table of methods has the method of either direction, or none."""
    rows = {row.name: (row.wrong, row.right) for row in load_model().task_types}
    table = load_json("methods.json")
    assert rows["ImageToTextTask"] == ("reportIncorrectImageCaptcha", None)
    assert rows["RecaptchaV3Task"] == ("reportIncorrectRecaptcha", "reportCorrectRecaptcha")
    assert {name for name, methods_ in rows.items() if methods_ == (None, None)} == set(
        table["uncoveredTaskTypes"]
    )
    for method in table["methods"]:
        for name in method["taskTypes"]:
            assert method["name"] in rows[name]
    assert len({name.lower() for name in rows}) == len(rows)


MODEL = Model(
    structs=(
        Struct("Empty", "Nothing in it.", ()),
        Struct(
            "Thing",
            "A thing. " + "Long words " * 12,
            (
                Field("taskId", Type("integer", is_zero_valid=False), True, "An id."),
                Field("httpUrl", Type("string"), False, "May be empty."),
                Field(
                    "kind", Type("string", name="Kind", values=("a",), is_zero_valid=False), False, "A kind."
                ),
                Field("word", Type("string", values=("x", "y"), is_zero_valid=False), True, "x or y."),
                Field("endsAt", Type("string", is_nullable=True, is_time=True), True, "Or null."),
                Field("openedAt", Type("string", is_zero_valid=False, is_time=True), True, "A time."),
                Field("isSure", Type("boolean"), False, "Yes or no."),
                Field("mark", Type("boolean", is_zero_valid=False), False, "Only ever true */."),
                Field("counts", Type("map", item=Type("integer")), True, "By name."),
                Field("others", Type("list", item=Type("named", name="Empty")), False, "Some."),
                Field("other", Type("named", name="Empty"), False, "One."),
                Field("id", Type("id"), True, "Any id."),
            ),
        ),
        Struct("Secret", "With a key.", (Field("clientKey", Type("string"), True, "A key."),)),
    ),
    enums=(Enum("Kind", "A kind.", ("a", "not_b")),),
    aliases=(Alias("Open", "Anything."),),
    calls=(),
    errors=(),
    task_types=(TaskType("ATask", "reportIncorrectRecaptcha", None),),
)


def test_typescript_says_what_the_model_says() -> None:
    """Each form of type has its spelling in TypeScript."""
    text = generate_typescript.render(MODEL)
    for line in (
        "export type Empty = Record<string, never>;",
        'export type Kind = "a" | "not_b";',
        "export type Open = Record<string, unknown>;",
        "  taskId: number;",
        "  httpUrl?: string;",
        "  kind?: Kind;",
        '  word: "x" | "y";',
        "  endsAt: string | null;",
        "  openedAt: string;",
        "  isSure?: boolean;",
        "  /** Only ever true * /. */",
        "  mark?: true;",
        "  counts: Record<string, number>;",
        "  others?: Array<Empty>;",
        "  id: string | number | null;",
        '  ATask: { wrong: "reportIncorrectRecaptcha", right: null },',
    ):
        assert f"{line}\n" in text
    assert max(len(line) for line in text.splitlines() if line.startswith(" *")) <= 100


def test_typescript_takes_null_for_a_param_that_is_left_out() -> None:
    """A member of params that is not required may be null or undefined; nothing else may."""
    call = Call("report", "Reports.", "Thing", "Empty")
    text = generate_typescript.render(MODEL._replace(calls=(call,)))
    for line in (
        "  taskId: number;",
        "  httpUrl?: string | null | undefined;",
        "  kind?: Kind | null | undefined;",
        "  id: string | number | null;",
    ):
        assert f"{line}\n" in text


def test_go_says_what_the_model_says() -> None:
    """Each form of type has its spelling in Go; a pointer where absent and zero differ."""
    model = MODEL._replace(calls=load_model().calls, errors=load_model().errors)
    text = generate_go.render(model)
    for line in (
        "type Empty struct{}",
        '\tKindA    Kind = "a"',
        '\tKindNotB Kind = "not_b"',
        "type Open = map[string]any",
        '\tTaskID int64 `json:"taskId"`',
        '\tHTTPUrl *string `json:"httpUrl,omitempty"`',
        '\tKind Kind `json:"kind,omitempty"`',
        '\tWord string `json:"word"`',
        '\t"time"',
        "func (v Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(show(v))) }",
        "func (v Secret) LogValue() slog.Value { return slog.StringValue(show(v)) }",
        '\tEndsAt *time.Time `json:"endsAt"`',
        '\tOpenedAt time.Time `json:"openedAt"`',
        "func (v Thing) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(show(v))) }",
        '\t"atask": {MethodReportIncorrectRecaptcha, ""},',
        '\tIsSure *bool `json:"isSure,omitempty"`',
        '\tMark bool `json:"mark,omitempty"`',
        '\tCounts map[string]int64 `json:"counts"`',
        '\tOthers []Empty `json:"others,omitempty"`',
        '\tOther *Empty `json:"other,omitempty"`',
        '\tID json.RawMessage `json:"id"`',
    ):
        assert f"{line}\n" in text


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("taskId", "TaskID"),
        ("not_sent", "NotSent"),
        ("bridge.getReport", "BridgeGetReport"),
        ("rpc.discover", "RPCDiscover"),
        ("$/cancelRequest", "CancelRequest"),
        ("http_forbidden", "HTTPForbidden"),
        ("p50", "P50"),
    ],
)
def test_wire_names_become_go_names(name: str, spelled: str) -> None:
    """Names get capitals, and well-known short forms get all of them."""
    assert generate_go.go_name(name) == spelled


def schema(**member: Any) -> dict[str, Any]:
    """Build an object schema with one member."""
    return {
        "title": "Thing",
        "description": "A thing.",
        "type": "object",
        "additionalProperties": False,
        "properties": {"it": {"description": "It.", **member}},
    }


INTEGER = {"type": "integer", "minimum": 0, "maximum": 9}


@pytest.mark.parametrize(
    ("whole", "pointer"),
    [
        (schema(type="string", format="uri"), "a.json#/properties/it/format"),
        (schema(type="string", not_={}), "a.json#/properties/it/not_"),
        (schema(), "a.json#/properties/it/type"),
        (schema(type="decimal"), "a.json#/properties/it/type"),
        (schema(type=["string", "integer"], minimum=0, maximum=1), "a.json#/properties/it/type"),
        (schema(type="integer"), "a.json#/properties/it"),
        (schema(type="integer", minimum=0, maximum=2**53), "a.json#/properties/it"),
        (schema(type="string", enum=[""]), "a.json#/properties/it/enum"),
        (schema(type="boolean", enum=[False]), "a.json#/properties/it/enum"),
        (schema(type="array"), "a.json#/properties/it/items"),
        (schema(type="array", items=[INTEGER]), "a.json#/properties/it/items"),
        (schema(type="array", items={"type": "integer"}), "a.json#/properties/it/items"),
        (schema(type=["array", "null"], items=INTEGER), "a.json#/properties/it/type"),
        (schema(type="object", additionalProperties=False), "a.json#/properties/it/title"),
        (schema(type="object", title="Other"), "a.json#/properties/it/additionalProperties"),
        (
            schema(type="object", title="Other", additionalProperties=True, properties={}),
            "a.json#/properties/it/additionalProperties",
        ),
        (
            schema(
                type="object",
                title="Other",
                additionalProperties=False,
                patternProperties={"^a~/b$": {"type": "integer"}},
            ),
            "a.json#/properties/it/patternProperties/^a~0~1b$",
        ),
        (
            schema(
                type="object",
                title="Other",
                additionalProperties=False,
                patternProperties={"a": INTEGER, "b": INTEGER},
            ),
            "a.json#/properties/it/patternProperties",
        ),
        (schema(**{"$ref": "#/definitions/x"}), "a.json#/properties/it/$ref"),
        (schema(**{"$ref": "b.json"}), "a.json#/properties/it/$ref"),
        (schema(**{"$ref": "b.json#/definitions/x", "minimum": 1}), "a.json#/properties/it/$ref"),
        (schema(**{"$ref": "b.json#/definitions/bad"}), "b.json#/definitions/bad/format"),
        ({**schema(), "properties": {"it": INTEGER}}, "a.json#/properties/it/description"),
        (
            schema(type="object", title="Thing", description="x", additionalProperties=False, properties={}),
            "a.json#/title",
        ),
        (INTEGER, "a.json#"),
    ],
)
def test_constructs_that_not_every_language_has_are_refused(whole: dict[str, Any], pointer: str) -> None:
    """The generator stops, and says where, instead of writing types that mean something else."""
    files = {"a.json": whole, "b.json": {"definitions": {"bad": {"type": "string", "format": "uri"}}}}
    with pytest.raises(Unsupported) as caught:
        Reader(files.__getitem__).read_file("a")
    assert str(caught.value).partition(": ")[0] == pointer
