"""The command `holdfast` as a process, against a scripted server and against real ones."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.cli import ask
from holdfast.cli.answer import AnswerView
from holdfast.cli.terminal import Terminal
from holdfast.client import ServerUnreachable
from holdfast.events import (
    Event,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
)
from holdfast.settings import ServerSettings, Settings, StorageSettings
from tests.support.command import Command, run
from tests.support.native_server import (
    RestartedServer,
    frames,
    in_turn,
    message_object,
    session_object,
)
from tests.support.upstream_server import (
    Script,
    ScriptedUpstream,
    Wire,
    completion,
    head,
    stream,
    whole,
)

RUN = "0192-run"
SESSION = "0192-session"
EVENTS: list[Event] = [
    RunStart(RUN, SESSION, "0192-message", "0192-question", "docs"),
    ReasoningDelta("Hm."),
    References((Reference(1, document_name="kelp.md", text="A root\nthat holds."),)),
    TextDelta("It is a root [1].\n"),
    TextDelta("  Really – 海带."),
    RunEnd(Outcome.COMPLETED),
]
FRAMES = frames(RUN, EVENTS)
SHOWN = """\
It is a root [1].
  Really – 海带.

References
[1] kelp.md
    A root that holds.
"""


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(in_turn(*scripts))


def ended(end: RunEnd) -> Script:
    return stream(*frames(RUN, [*EVENTS[:-1], end]))


class TestAsk:
    async def test_shows_the_answer_with_its_references_as_plain_text(self, tmp_path: Path) -> None:
        async with scripted(stream(*FRAMES)) as server:
            done = await run("ask", "What?", "--url", server.base_url, folder=tmp_path)
        assert (done.code, done.out) == (0, SHOWN)
        assert done.err == f'Ask on with: holdfast ask --session {SESSION} "…"\n'

    async def test_finds_the_server_in_the_environment(self, tmp_path: Path) -> None:
        async with scripted(stream(*FRAMES)) as server:
            environ = {"HOLDFAST_URL": server.base_url}
            assert (await run("ask", "What?", folder=tmp_path, environ=environ)).code == 0

    async def test_finds_the_server_in_the_settings(self, tmp_path: Path) -> None:
        async with scripted(stream(*FRAMES)) as server:
            environ = {"HOLDFAST_SERVER__PORT": server.base_url.rpartition(":")[2]}
            assert (await run("ask", "What?", folder=tmp_path, environ=environ)).code == 0

    async def test_reads_the_question_from_its_input(self, tmp_path: Path) -> None:
        async with scripted(stream(*FRAMES)) as server:
            await run("ask", "-", "--url", server.base_url, folder=tmp_path, text="Long?\nYes.")
        assert server.requests[0].json == {"message": "Long?\nYes."}

    async def test_asks_on_in_the_last_session(self, tmp_path: Path) -> None:
        async with scripted(stream(*FRAMES), stream(*FRAMES)) as server:
            await run("ask", "A?", "--url", server.base_url, folder=tmp_path)
            options = ("--session", "last", "--upstream", "docs", "--url", server.base_url)
            await run("ask", "B?", *options, folder=tmp_path)
        assert server.requests[1].json == {
            "message": "B?",
            "session_id": SESSION,
            "upstream": "docs",
        }

    @pytest.mark.parametrize(
        ("end", "code"),
        [
            (RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_TRUNCATED), 3),
            (RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED), 3),
            (RunEnd(Outcome.FAILED, Reason.UPSTREAM_EMPTY), 1),
        ],
    )
    async def test_tells_by_its_exit_code_how_the_answer_ended(
        self, end: RunEnd, code: int, tmp_path: Path
    ) -> None:
        async with scripted(ended(end)) as server:
            done = await run("ask", "What?", "--url", server.base_url, folder=tmp_path)
        assert (done.code, done.out) == (code, SHOWN)
        assert f"({end.reason})." in done.err

    async def test_nobody_at_the_address_given_is_told_in_a_line(self, tmp_path: Path) -> None:
        async with scripted() as server:
            url = server.base_url
        done = await run("ask", "What?", "--url", url, folder=tmp_path)
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith(f"holdfast: no answer from {url}: ")
        assert done.err.endswith("; start it with: holdfast serve\n")
        assert done.err.count("\n") == 1

    async def test_an_error_of_the_server_is_told_in_a_line(self, tmp_path: Path) -> None:
        body = {"error": {"code": "not_found", "message": "there is no such session"}}
        async with scripted(whole(body, 404)) as server:
            options = ("--session", "s", "--url", server.base_url)
            done = await run("ask", "What?", *options, folder=tmp_path)
        assert (done.code, done.out, done.err) == (1, "", "holdfast: there is no such session\n")

    async def test_a_busy_session_is_told_with_the_way_to_its_run(self, tmp_path: Path) -> None:
        body = {"error": {"code": "run_active", "message": "it is busy", "run_id": RUN}}
        async with scripted(whole(body, 409)) as server:
            done = await run("ask", "What?", "--url", server.base_url, folder=tmp_path)
        assert (done.code, done.out) == (1, "")
        assert done.err == f"holdfast: it is busy; see it with: holdfast ask --resume {RUN}\n"

    async def test_goes_on_where_it_stopped_when_the_server_comes_back(
        self, tmp_path: Path
    ) -> None:
        async with contextlib.AsyncExitStack() as life:
            script = stream(*FRAMES[:4], end=[Wire.STALL])
            server = await life.enter_async_context(scripted(script))
            restarted = RestartedServer(server, stream(*FRAMES[4:]))
            async with Command("ask", "What?", "--url", server.base_url, folder=tmp_path) as asking:
                out = await asking.out_until("[1].\n")
                await life.aclose()
                err = await asking.err_until("waiting for the server …\n")
                async with restarted:
                    done = await asking.done()
        assert (done.code, out + done.out) == (0, SHOWN)
        assert (err + done.err).startswith("Connection lost (")
        assert "Connected again.\n" in done.err
        assert restarted.requests[0].headers["last-event-id"] == f"{RUN}.4"

    async def test_a_question_that_a_server_may_have_taken_is_not_asked_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ask, "PATIENCE_S", 0.0)
        async with scripted([head(), Wire.CLOSE]) as server:
            port = int(server.base_url.rpartition(":")[2])
            settings = Settings(
                server=ServerSettings(port=port),
                storage=StorageSettings(url=f"sqlite:///{tmp_path}/holdfast.db"),
                upstreams={"docs": {"kind": "library", "path": str(tmp_path)}},
            )
            terminal = Terminal()
            conversation = ask._Conversation(ask.Question("What?"), terminal, AnswerView(terminal))
            with pytest.raises(ServerUnreachable):
                await conversation.hold(settings, None)
        assert not (tmp_path / "holdfast.db").exists()

    async def test_ctrl_c_leaves_the_answer_going_on_and_says_how_to_see_it(
        self, tmp_path: Path
    ) -> None:
        async with scripted(stream(*FRAMES[:4], end=[Wire.STALL]), stream(*FRAMES)) as server:
            options = ("--url", server.base_url)
            async with Command("ask", "What?", *options, folder=tmp_path) as asking:
                await asking.out_until("[1].\n")
                done = await asking.stop(signal.SIGINT)
            assert done.code == 130
            assert done.err == (
                "The answer goes on without this command; to see it: "
                f"holdfast ask --resume {RUN} --url {server.base_url}\n"
            )
            again = await run("ask", "--resume", "last", *options, folder=tmp_path)
        assert (again.code, again.out) == (0, SHOWN)
        assert [request.path for request in server.requests] == [
            "/api/v1/runs",
            f"/api/v1/runs/{RUN}/events",
        ]

    async def test_a_reader_that_leaves_the_pipe_is_no_crash(self, tmp_path: Path) -> None:
        pieces = frames(RUN, [EVENTS[0], *[TextDelta("x" * 100_000)] * 20])
        async with scripted(stream(*pieces, end=[Wire.STALL])) as server:
            reading, writing = os.pipe()
            arguments = ("ask", "What?", "--url", server.base_url)
            with os.fdopen(writing, "wb") as out:
                command = Command(*arguments, folder=tmp_path, out=out)
                async with command as asking:
                    await asyncio.to_thread(os.read, reading, 10)
                    os.close(reading)
                    done = await asking.done()
        assert done.code == 1
        assert "Traceback" not in done.err

    async def test_a_terminal_shows_progress_and_styles(self, tmp_path: Path) -> None:
        controller, terminal = pty.openpty()
        async with scripted(ended(RunEnd(Outcome.INTERRUPTED, Reason.LIMIT))) as server:
            arguments = ("ask", "What?", "--url", server.base_url)
            with os.fdopen(terminal, "wb") as tty:
                environ = {"TERM": "xterm"}
                command = Command(*arguments, folder=tmp_path, environ=environ, out=tty, err=tty)
                async with command as asking:
                    await asking.done()
        shown = os.read(controller, 65536).decode()
        os.close(controller)
        assert "Hm." in shown
        assert "\x1b[1mReferences\x1b[0m" in shown
        assert "The answer is not complete (limit)." in shown


ANSWER = {"role": "assistant", "upstream": "docs"}


class TestShow:
    MESSAGES: ClassVar = {
        "items": [
            message_object(created_at="T1", content="What?"),
            message_object(
                created_at="T2",
                content="A root [1].",
                references=[{"ordinal": 1, "document_name": "kelp.md", "text": "A root."}],
                status="partial",
                outcome="interrupted",
                reason="limit",
                **ANSWER,
            ),
            message_object(created_at="T3", content="And", status="streaming", **ANSWER),
        ],
        "next": None,
    }

    async def test_shows_questions_and_answers_with_references(self, tmp_path: Path) -> None:
        scripts = whole(session_object(title="Kelp")), whole(self.MESSAGES)
        async with scripted(*scripts) as server:
            done = await run("show", SESSION, "--url", server.base_url, folder=tmp_path)
        assert done.code == 0
        assert done.out == (
            "Kelp\n\nQuestion, T1\nWhat?\n\nAnswer (docs), T2\nA root [1].\n\n"
            "References\n[1] kelp.md\n    A root.\n"
            "The answer is not complete (limit).\n\nAnswer (docs), T3\nAnd\n(being written)\n"
        )

    async def test_shows_the_last_session_unless_told_otherwise(self, tmp_path: Path) -> None:
        page = whole({"items": [], "next": None})
        scripts = stream(*FRAMES), whole(session_object()), page
        async with scripted(*scripts) as server:
            environ = {"HOLDFAST_URL": server.base_url}
            await run("ask", "What?", folder=tmp_path, environ=environ)
            done = await run("show", folder=tmp_path, environ=environ)
        assert (done.code, done.out) == (0, f"{SESSION}\n")
        assert server.requests[1].path == f"/api/v1/sessions/{SESSION}"

    async def test_a_session_that_is_not_there_is_told_in_a_line(self, tmp_path: Path) -> None:
        body = {"error": {"code": "not_found", "message": "there is no such session"}}
        async with scripted(whole(body, 404)) as server:
            done = await run("show", "x", "--url", server.base_url, folder=tmp_path)
        assert (done.code, done.err) == (1, "holdfast: there is no such session\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with documents and settings; an answer takes some seconds."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "kelp.md").write_text(
        "# Kelp\n\n" + "A holdfast is the root that keeps kelp in place in a strong current. " * 8,
        encoding="utf-8",
    )
    (tmp_path / "holdfast.toml").write_text(
        '[server]\nport = 0\n[upstreams.docs]\nkind = "library"\npath = "docs"\npace = 150\n',
        encoding="utf-8",
    )
    return tmp_path


QUESTION = "What is a holdfast?"


async def url_of(server: Command) -> str:
    line = await server.err_until("upstreams: docs\n")
    (url,) = re.findall(r"Holdfast at (http://\S+), database sqlite:///holdfast.db,", line)
    return str(url)


class TestWithoutServer:
    async def test_ask_answers_in_this_process(self, folder: Path) -> None:
        environ = {"HOLDFAST_UPSTREAMS__DOCS__PACE": "0", "HOLDFAST_SERVER__PORT": "1"}
        done = await run("ask", QUESTION, folder=folder, environ=environ)
        assert done.code == 0
        assert "keeps kelp in place" in done.out
        assert "References\n[1] Kelp\n" in done.out
        assert done.err.startswith("No server; answering here, database sqlite:///holdfast.db\n")
        shown = await run("show", folder=folder, environ=environ)
        assert shown.code == 0
        assert done.out in shown.out

    async def test_ctrl_c_keeps_what_had_arrived(self, folder: Path) -> None:
        environ = {"HOLDFAST_SERVER__PORT": "1"}
        async with Command("ask", QUESTION, folder=folder, environ=environ) as asking:
            await asking.out_until("holdfast")
            done = await asking.stop(signal.SIGINT)
        assert done.code == 130
        assert "What was shown is kept: holdfast show " in done.err
        shown = await run("show", folder=folder, environ=environ)
        assert "The answer is not complete (server_shutdown" in shown.out

    async def test_ask_without_anybody_to_ask_says_what_to_do(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_SERVER__PORT": "1"}
        done = await run("ask", QUESTION, folder=tmp_path, environ=environ)
        assert done.code == 2
        assert "holdfast demo" in done.err
        assert not (tmp_path / "holdfast.db").exists()

    async def test_show_makes_no_database(self, tmp_path: Path) -> None:
        done = await run("show", "x", folder=tmp_path, environ={"HOLDFAST_SERVER__PORT": "1"})
        assert done.code == 4
        assert not (tmp_path / "holdfast.db").exists()


class TestServe:
    async def test_ask_goes_on_through_a_kill_of_the_server(self, folder: Path) -> None:
        async with Command("serve", folder=folder) as server:
            url = await url_of(server)
            async with Command("ask", QUESTION, "--url", url, folder=folder) as asking:
                out = await asking.out_until("holdfast")
                server.process.kill()
                await server.process.wait()
                await asking.err_until("waiting for the server …\n")
                port = ("--port", url.rpartition(":")[2])
                async with Command("serve", *port, folder=folder) as again:
                    await url_of(again)
                    done = await asking.done()
                    shown = await run("show", "--url", url, folder=folder)
        assert done.code == 3
        assert "(server_crash" in done.err
        assert "References\n[1] Kelp\n" in out + done.out
        assert (out + done.out) in shown.out

    @pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_ends_it_without_noise(self, sig: signal.Signals, folder: Path) -> None:
        async with Command("serve", folder=folder) as server:
            await url_of(server)
            done = await server.stop(sig)
        assert done.code == 0
        assert "Traceback" not in done.err

    async def test_a_port_that_is_taken_is_told_in_a_line(self, folder: Path) -> None:
        async with ScriptedUpstream([]) as other:
            port = other.base_url.rpartition(":")[2]
            done = await run("serve", "--port", port, folder=folder)
        assert done.code == 2
        assert done.err.startswith(f"holdfast: cannot listen on 127.0.0.1:{port}: ")
        assert done.err.count("\n") == 1

    async def test_a_database_in_use_is_told_in_a_line(self, folder: Path) -> None:
        async with Command("serve", folder=folder) as server:
            await url_of(server)
            done = await run("serve", folder=folder)
        assert done.code == 1
        assert done.err.startswith("holdfast: ")
        assert done.err.count("\n") == 1


class TestDemo:
    async def test_its_curl_line_works_word_by_word_and_its_data_stays(self, folder: Path) -> None:
        arguments = ("demo", "--port", "0", "--documents", "docs")
        async with Command(*arguments, folder=folder) as server:
            text = await server.out_until("goes on by itself:\n")
            (line,) = (line for line in text.splitlines() if line.strip().startswith("curl "))
            (pid,) = re.findall(r"kill -9 (\d+)", text)
            asked = await asyncio.create_subprocess_shell(
                line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            out, _ = await asked.communicate()
            assert int(pid) == server.process.pid
        assert b"event: run-start\n" in out
        assert b"event: run-end\n" in out
        assert (folder / "demo-data" / "holdfast.db").exists()
        async with Command(*arguments, folder=folder) as again:
            await again.out_until("goes on by itself:\n")

    async def test_a_model_that_is_set_up_writes_its_answers(self, folder: Path) -> None:
        async with ScriptedUpstream(lambda _: stream(*completion("It holds ", "[1]."))) as model:
            out = await self.answer(folder, model.base_url)
            (request,) = model.requests
        assert "The answers are written by m1 at 127.0.0.1:" in out
        assert '"text":"It holds "' in out
        assert '"text":"[1].","marks":[[0,3,1]]' in out
        assert '"type":"references"' in out
        messages = request.json["messages"]
        assert [message["role"] for message in messages] == ["system", "user"]
        assert "A holdfast is the root" in messages[1]["content"]
        assert request.headers["authorization"] == "Bearer sk-x"

    async def test_a_model_that_cannot_be_reached_does_not_break_it(self, folder: Path) -> None:
        out = await self.answer(folder, "http://127.0.0.1:1")
        assert '"message":"openai is down, so the passages are quoted as they are"' in out
        assert '"outcome":"completed"' in out
        assert "A holdfast is the root" in out

    async def test_the_model_can_be_left_out(self, folder: Path) -> None:
        async with ScriptedUpstream([]) as model:
            out = await self.answer(folder, model.base_url, "--no-writer")
            assert model.requests == []
        assert "are written by" not in out
        assert '"outcome":"completed"' in out

    async def answer(self, folder: Path, base_url: str, *options: str) -> str:
        """What a demo prints, and what it answers to the question that it proposes."""
        environ = {"OPENAI_BASE_URL": base_url, "OPENAI_MODEL": "m1", "OPENAI_API_KEY": "sk-x"}
        (folder / "holdfast.toml").unlink()
        arguments = ("demo", "--port", "0", "--documents", "docs", *options)
        async with Command(*arguments, folder=folder, environ=environ) as server:
            text = await server.out_until("goes on by itself:\n")
            (url,) = re.findall(r"(http://\S+)/api/v1/runs", text)
            asked = await asyncio.create_subprocess_exec(
                *("curl", "-sN", "-H", "Content-Type: application/json"),
                *("-d", json.dumps({"message": QUESTION}), f"{url}/api/v1/runs"),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await asked.communicate()
        assert "sk-x" not in text + out.decode()
        return text + out.decode()


class TestMigrateAndDoctor:
    async def test_migrate_makes_the_schema(self, folder: Path) -> None:
        done = await run("migrate", folder=folder)
        assert (done.code, done.err) == (0, "sqlite:///holdfast.db is up to date\n")
        assert (folder / "holdfast.db").exists()

    async def test_doctor_finds_everything_in_order(self, folder: Path) -> None:
        done = await run("doctor", folder=folder)
        assert (done.code, done.err) == (0, "")
        database, keys, docs = done.out.splitlines()
        assert database == "ok   database: sqlite:///holdfast.db is made at the first start"
        assert keys.startswith("ok   keys: none, ")
        assert docs.startswith("ok   upstream docs: ")
        assert not (folder / "holdfast.db").exists()

    async def test_doctor_may_look_while_the_server_runs(self, folder: Path) -> None:
        async with Command("serve", folder=folder) as server:
            await url_of(server)
            done = await run("doctor", folder=folder)
        assert done.code == 0
        assert done.out.startswith("ok   database: sqlite:///holdfast.db is in use")

    async def test_doctor_names_each_thing_that_is_wrong(self, folder: Path) -> None:
        (folder / "holdfast.db").write_text("This is not a database, but it is long enough." * 99)
        environ = {
            "HOLDFAST_UPSTREAMS__DOCS__PATH": "nowhere",
            "HOLDFAST_UPSTREAMS__GPT__KIND": "openai",
            "HOLDFAST_UPSTREAMS__GPT__BASE_URL": "http://127.0.0.1:1",
            "HOLDFAST_UPSTREAMS__KB__KIND": "library",
            "HOLDFAST_ROUTER__DEFAULT": "nobody",
        }
        done = await run("doctor", folder=folder, environ=environ)
        assert (done.code, done.err) == (1, "")
        starts = [line.partition(":")[0] for line in done.out.splitlines()]
        assert starts == [
            "FAIL database",
            "FAIL upstream docs",
            "FAIL upstream gpt",
            "FAIL upstream kb",
            "FAIL router",
        ]

    async def test_doctor_says_what_names_nothing(self, folder: Path) -> None:
        environ = {
            "HOLDFAST_UPSTREAMS__DOCS__WRITER": "nobody",
            "HOLDFAST_ROUTER__FALLBACKS": "docs,nobody",
            "HOLDFAST_PRESETS__DOCS__MODEL": "m",
        }
        done = await run("doctor", folder=folder, environ=environ)
        assert done.code == 1
        assert done.out.splitlines()[3:] == [
            "FAIL router: router.fallbacks[1] names 'nobody'; there is docs",
            "FAIL presets: presets.docs has the name of an upstream: choose another",
            "FAIL upstreams: upstreams.docs.writer names 'nobody'; there is docs",
        ]

    async def test_doctor_says_that_there_is_nobody_to_ask(self, tmp_path: Path) -> None:
        done = await run("doctor", folder=tmp_path)
        assert done.code == 1
        assert "FAIL upstreams: there is none" in done.out
