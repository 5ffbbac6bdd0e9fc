"""The command line as far as it needs no server."""

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import holdfast
from holdfast.cli import codes, demo, last, options
from holdfast.cli.answer import AnswerView
from holdfast.cli.codes import ExitCode
from holdfast.cli.main import app
from holdfast.cli.terminal import Terminal
from holdfast.client import ServerUnreachable
from holdfast.errors import ConfigError, NotFound
from holdfast.events import (
    Entry,
    Event,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    encode,
)
from holdfast.settings import PresetSettings, RouterSettings, Settings, load

COMMANDS = ["serve", "demo", "ask", "show", "migrate", "doctor", "keys"]
START = RunStart("run", "session", "message", "question", "docs")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what belongs to whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "OLLAMA_HOST", "OLLAMA_MODEL")
    for name in (*names, "HOLDFAST_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class TestHelp:
    def test_lists_every_command(self) -> None:
        result = run("--help")
        assert result.exit_code == ExitCode.OK
        for command in COMMANDS:
            assert f"\n  {command} " in result.stdout

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_a_command_has_no_cut_off_summary(self, command: str) -> None:
        (line,) = (line for line in run("-h").stdout.splitlines() if f"  {command} " in line)
        assert "..." not in line
        assert line.strip().removeprefix(command).strip() in run(command, "-h").stdout

    @pytest.mark.parametrize("command", ["serve", "demo", "ask", "show", "keys"])
    def test_of_a_command_has_examples(self, command: str) -> None:
        assert f"Examples:\n    holdfast {command}" in run(command, "--help").stdout

    def test_names_the_exit_codes(self) -> None:
        text = " ".join(run("--help").stdout.split())
        for code in ExitCode:
            assert f" {code.value} " in text

    def test_shows_no_path_of_this_machine(self) -> None:
        assert str(demo.DOCUMENTS) not in run("demo", "--help").stdout

    def test_version(self) -> None:
        assert run("--version").stdout == f"holdfast {holdfast.__version__}\n"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["ask"], "what is the question?"),
            (["ask", "  "], "what is the question?"),
            (["ask", "--resume", "r", "Hm?"], "--resume shows a run that was asked before"),
            (["ask", "--resume", "last"], "there is no last question"),
            (["ask", "--session", "last", "Hm?"], "there is no last question"),
            (["ask", "--url", "ftp://x", "Hm?"], "'ftp://x' is not the address of a server"),
            (["show"], "there is no last question"),
            (["serve", "--config", "none.toml"], "none.toml: there is no such file"),
            (["demo", "--documents", "none"], "none: there is no such folder"),
            (["demo", "--data", "/dev/null/x"], "/dev/null/x: cannot be made"),
        ],
    )
    def test_what_cannot_be_is_told_in_a_line(self, arguments: list[str], message: str) -> None:
        result = run(*arguments)
        assert result.exit_code == ExitCode.USAGE
        assert result.stderr.startswith(f"holdfast: {message}")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""

    @pytest.mark.parametrize(
        "arguments", [["nope"], ["ask", "--nope"], ["serve", "--port", "x"], ["serve", "--port=-1"]]
    )
    def test_wrong_arguments(self, arguments: list[str]) -> None:
        assert run(*arguments).exit_code == ExitCode.USAGE

    def test_wrong_settings_name_file_and_key(self) -> None:
        Path("holdfast.toml").write_text("[server]\nprot = 1")
        result = run("serve")
        assert result.exit_code == ExitCode.USAGE
        assert result.stderr == (
            "holdfast: holdfast.toml: unknown key server.prot; did you mean server.port?\n"
        )

    def test_a_server_without_upstream_says_what_to_do(self) -> None:
        result = run("serve")
        assert result.exit_code == ExitCode.USAGE
        for hint in ("holdfast demo", "OPENAI_API_KEY", "OLLAMA_HOST", "[upstreams.NAME]"):
            assert hint in result.stderr


class TestExitCodes:
    def test_of_errors(self) -> None:
        assert codes.of_error(ConfigError("x")) == ExitCode.USAGE
        assert codes.of_error(ServerUnreachable("x", reached=False)) == ExitCode.UNREACHABLE
        assert codes.of_error(NotFound("x")) == ExitCode.FAILED

    @pytest.mark.parametrize(
        ("outcome", "code"),
        [
            (Outcome.COMPLETED, ExitCode.OK),
            (Outcome.CANCELLED, ExitCode.PARTIAL),
            (Outcome.INTERRUPTED, ExitCode.PARTIAL),
            (Outcome.FAILED, ExitCode.FAILED),
        ],
    )
    def test_of_answers(self, outcome: Outcome, code: ExitCode) -> None:
        assert codes.of_end(RunEnd(outcome)) == code


class TestServerUrl:
    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:8484"),
            ("0.0.0.0", "http://127.0.0.1:8484"),
            ("::", "http://[::1]:8484"),
            ("example", "http://example:8484"),
        ],
    )
    def test_follows_from_the_settings(self, host: str, url: str) -> None:
        assert options.server_url(options.with_server(Settings(), host=host, port=None)) == url


class TestLast:
    def test_is_what_was_asked_last(self) -> None:
        last.remember(START)
        last.remember(RunStart("run-2", "session-2", "m", "q", "docs"))
        assert last.recall() == last.Asked("run-2", "session-2")

    def test_a_broken_note_counts_as_none(self, tmp_path: Path) -> None:
        last.remember(START)
        (tmp_path / "state" / "holdfast" / "last.json").write_text("{")
        with pytest.raises(ConfigError):
            last.recall()

    def test_a_place_that_cannot_be_written_is_no_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
        last.remember(START)
        with pytest.raises(ConfigError):
            last.recall()


class TestDemo:
    lines = demo.introduction("http://127.0.0.1:8484", Path("/data/holdfast.db"), Path("/docs"))

    def command(self, name: str) -> list[str]:
        (line,) = (line.strip() for line in self.lines if line.strip().startswith(name))
        return shlex.split(line)

    def test_the_curl_line_asks_the_sample_question(self) -> None:
        words = self.command("curl ")
        assert words[:2] == ["curl", "-N"]
        assert words[words.index("-H") + 1] == "Content-Type: application/json"
        assert json.loads(words[words.index("-d") + 1]) == {"message": demo.QUESTION}
        assert words[-1] == "http://127.0.0.1:8484/api/v1/runs"

    def test_the_kill_line_is_ready(self) -> None:
        words = self.command("kill ")
        assert words[:2] == ["kill", "-9"]
        assert words[2].isdigit()

    def test_the_command_to_start_again_is_the_one_that_was_typed(self) -> None:
        assert f"       {shlex.join(sys.argv)}" in self.lines

    def test_database_and_page_are_named(self) -> None:
        assert any("/data/holdfast.db" in line for line in self.lines)
        assert "       http://127.0.0.1:8484/" in self.lines

    def test_nobody_but_the_library_is_asked(self) -> None:
        settings = Settings(
            upstreams={"gpt": {"kind": "openai"}},
            router=RouterSettings(default="gpt", cloud="gpt", fallbacks=("gpt",)),
            presets={"x": PresetSettings(upstream="gpt")},
        )
        settings = demo.demo_settings(settings, Path("/data"), Path("/docs"))
        assert settings.upstreams == {
            "docs": {"kind": "library", "path": "/docs", "index": "/data/docs.library.db"}
        }
        assert settings.router == RouterSettings(default="docs")
        assert settings.presets == {}
        assert settings.storage.url == "sqlite:////data/holdfast.db"

    def test_its_writer_is_asked_too(self) -> None:
        gpt = {"kind": "openai", "base_url": "http://llm.example", "model": "m"}
        settings = Settings(upstreams={"openai": gpt, "other": gpt})
        settings = demo.demo_settings(settings, Path("/data"), Path("/docs"), "openai")
        assert settings.upstreams["openai"] == gpt
        assert settings.upstreams["docs"]["writer"] == "openai"
        assert list(settings.upstreams) == ["docs", "openai"]

    @pytest.mark.parametrize(
        ("environ", "name", "told"),
        [
            ({}, None, None),
            (
                {"OPENAI_API_KEY": "sk-x", "OPENAI_MODEL": "big"},
                "openai",
                "The answers are written by big at api.openai.com, which gets your questions",
            ),
            (
                {"OLLAMA_HOST": "0.0.0.0", "OLLAMA_MODEL": "small"},
                "ollama",
                "The answers are written by small at 127.0.0.1:11434, which gets your questions",
            ),
            (
                {"OPENAI_API_KEY": "sk-x", "OLLAMA_HOST": "::1", "OLLAMA_MODEL": "small"},
                "ollama",
                "The answers are written by small at [::1]:11434",
            ),
            (
                {"OPENAI_API_KEY": "sk-x"},
                None,
                "No model writes the answers: upstreams.openai.model needs the variable "
                "OPENAI_MODEL, which is not set",
            ),
            (
                {"OPENAI_BASE_URL": "nonsense", "OPENAI_MODEL": "m", "OPENAI_API_KEY": "sk-x"},
                None,
                "No model writes the answers: upstreams.openai.base_url",
            ),
            (
                {
                    "ANYTHINGLLM_BASE_URL": "http://x.example",
                    "ANYTHINGLLM_API_KEY": "k",
                    "ANYTHINGLLM_WORKSPACE_SLUG": "w",
                },
                None,
                None,
            ),
        ],
    )
    def test_who_writes_is_found_in_the_variables_and_told(
        self, environ: dict[str, str], name: str | None, told: str | None
    ) -> None:
        writer = demo.find_writer(load(environ=environ))
        assert writer.name == name
        assert (writer.told or "").startswith(told or "")
        assert (writer.told is None) == (told is None)
        assert "sk-x" not in (writer.told or "")
        lines = demo.introduction("http://h", Path("/data/h.db"), Path("/docs"), writer.told)
        assert (writer.told in lines) == (told is not None)


class TestAnswer:
    """Not on a terminal; `tests/integration/test_cli.py` shows one on a terminal."""

    def shown(self, capsys: pytest.CaptureFixture[str], *events: Event) -> tuple[str, str]:
        view = AnswerView(Terminal())
        for seq, event in enumerate(events, 1):
            view.show(Entry(seq, event, encode(event)))
        captured = capsys.readouterr()
        return captured.out, captured.err

    END = RunEnd(Outcome.COMPLETED)

    def test_is_its_text_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        pieces = (
            TextDelta("Kelp\t[bold]"),
            TextDelta("[/bold]\n\n    海带 :smile: "),
            TextDelta("x"),
        )
        assert self.shown(capsys, START, *pieces, self.END) == (
            "Kelp\t[bold][/bold]\n\n    海带 :smile: x\n",
            "",
        )

    def test_cannot_steer_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        evil = "\x1b]0;title\x07\x1b[2J\x9b31m\rgone\x7f"
        references = References((Reference(1, document_name=evil, text=evil),))
        out, err = self.shown(
            capsys, START, TextDelta(evil), references, Notice("x", evil), self.END
        )
        for text in (out, err):
            assert "gone" in text
            assert not set(text) & {"\x1b", "\x07", "\x9b", "\r", "\x7f"}

    def test_has_its_references_under_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        references = References(
            (
                Reference(1, document_name="a.md", text="one\n  two", url="https://a.example/"),
                Reference(2, document_id="b", text="x" * 1000),
                Reference(3, url="https://c.example/"),
            )
        )
        out, _ = self.shown(capsys, START, references, TextDelta("Text [1]"), self.END)
        assert out.splitlines() == [
            "Text [1]",
            "",
            "References",
            "[1] a.md",
            "    one two",
            "    https://a.example/",
            "[2] b",
            "    " + "x" * 239 + "…",
            "[3] https://c.example/",
        ]

    def test_goes_on_when_a_rewriting_extends_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = self.shown(capsys, START, TextDelta("ab"), TextReplace("abc"), self.END)
        assert (out, err) == ("abc\n", "")

    def test_is_shown_anew_when_it_was_rewritten(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = self.shown(capsys, START, TextDelta("ab"), TextReplace("xy"), self.END)
        assert out == "ab\n\nxy\n"
        assert "written anew" in err

    def test_leaves_progress_to_terminals(self, capsys: pytest.CaptureFixture[str]) -> None:
        events = ReasoningDelta("hm"), Step("searching"), TextDelta("a")
        assert self.shown(capsys, START, *events, self.END) == ("a\n", "")

    def test_tells_notices(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = self.shown(capsys, START, Notice("x", "cloud is down"), self.END)
        assert (out, err) == ("", "cloud is down\n")

    @pytest.mark.parametrize(
        ("end", "line"),
        [
            (
                RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="boom"),
                "The answer is not complete (upstream_error: boom).\n",
            ),
            (
                RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED),
                "The answer is not complete (client_cancelled).\n",
            ),
            (RunEnd(Outcome.FAILED), "There is no answer.\n"),
        ],
    )
    def test_says_how_it_ended(
        self, end: RunEnd, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.shown(capsys, START, end) == ("", line)

    def test_survives_a_terminal_that_is_not_utf8(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        AnswerView(Terminal()).show(Entry(1, TextDelta("海 ok"), b""))
        assert raw.getvalue() == b"? ok"
