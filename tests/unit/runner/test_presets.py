"""Presets: what they say counts as far as the question says nothing."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import BadRequest, ConfigError, NotFound
from holdfast.runner.asking import Question
from holdfast.runner.presets import Presets
from holdfast.settings import PresetSettings
from holdfast.store.port import CreateSession
from tests.support.records import OWNER, STRANGER, a_session, commit
from tests.support.scripted import DONE, texts
from tests.support.stage import Stage, on_stage

CAREFUL = PresetSettings(
    upstream="gpt",
    model="big",
    system="Be brief.",
    temperature=0.0,
    max_tokens=9,
    history_messages=0,
)
PLAIN = PresetSettings(system="Be kind.")
SAID = CAREFUL.model_dump()


def _presets(**presets: PresetSettings) -> Presets:
    return Presets({"careful": CAREFUL, "plain": PLAIN, **presets}, ["docs", "gpt"])


def _applied(stored: str | None = None, **said: Any) -> dict[str, Any]:
    """What of a preset's matters a question is asked with."""
    question = _presets().apply(Question(owner=OWNER, message="Why?", **said), stored)
    return {name: getattr(question, name) for name in SAID}


NOTHING = dict.fromkeys(SAID)


@pytest.mark.parametrize(
    ("stored", "said", "asked"),
    [
        (None, {}, NOTHING),
        (None, {"preset": "careful"}, SAID),
        ("careful", {}, SAID),
        ("careful", {"preset": "plain"}, NOTHING | {"system": "Be kind."}),
        (
            "careful",
            {"temperature": 0.5, "max_tokens": 1},
            SAID | {"temperature": 0.5, "max_tokens": 1},
        ),
        (
            "careful",
            {"system": "", "history_messages": 3},
            SAID | {"system": "", "history_messages": 3},
        ),
        ("careful", {"model": "small"}, SAID | {"model": "small"}),
        ("careful", {"upstream": "gpt"}, SAID),
        # A model belongs to its upstream.
        ("careful", {"upstream": "docs"}, SAID | {"upstream": "docs", "model": None}),
        ("careful", {"upstream": "auto"}, SAID | {"upstream": "auto", "model": None}),
        (
            "plain",
            {"upstream": "docs", "model": "m"},
            NOTHING | {"upstream": "docs", "model": "m", "system": "Be kind."},
        ),
    ],
)
def test_what_a_question_says_itself_beats_the_preset(
    stored: str | None, said: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert _applied(stored, **said) == asked


@pytest.mark.parametrize(
    ("stored", "said", "asked"),
    [
        (None, {}, (1024, 0.7)),
        ("nobody", {}, (1024, 0.7)),
        ("plain", {}, (1024, 0.7)),
        ("careful", {}, (9, 0.0)),
        ("careful", {"max_tokens": 1}, (1, 0.0)),
        (None, {"temperature": 0.0}, (1024, 0.0)),
    ],
)
def test_defaults_hold_where_neither_says_anything(
    stored: str | None, said: dict[str, Any], asked: tuple[int, float]
) -> None:
    defaults = {"max_tokens": 1024, "temperature": 0.7}
    found = _applied(stored, defaults=defaults, **said)
    assert (found["max_tokens"], found["temperature"]) == asked


def _chat(*roles: str, **said: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": role} for role in roles], "tools": [1], **said}


def test_an_openai_clients_request_is_filled_in_too() -> None:
    chat = _chat("user", temperature=None)
    question = Question(owner=OWNER, message="Why?", preset="careful", chat=chat)
    applied = _presets().apply(question).chat
    assert applied == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "user"},
        ],
        "tools": [1],
        "temperature": 0.0,
        "max_tokens": 9,
    }
    assert chat == _chat("user", temperature=None)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_an_openai_clients_request_says_itself_stays(role: str) -> None:
    chat = _chat(role, "user", temperature=1, max_completion_tokens=2)
    question = Question(
        owner=OWNER, message="Why?", preset="careful", chat=chat, temperature=1, max_tokens=2
    )
    applied = _presets().apply(question)
    assert (applied.chat, applied.system) == (chat, None)


def test_nothing_else_of_the_question_changes() -> None:
    question = Question(owner=OWNER, message="Why?", preset="careful", dialect="v1")
    applied = _presets().apply(question)
    fields = msgspec.structs.asdict(question)
    changed = {
        name for name, value in msgspec.structs.asdict(applied).items() if value != fields[name]
    }
    assert changed == set(SAID)


def test_a_preset_of_a_session_that_is_not_configured_any_more_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert _applied("gone") == NOTHING
    assert "'gone'" in caplog.text


@pytest.mark.parametrize("name", ["gone", "", "Careful", "gpt"])
def test_an_unknown_preset_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(BadRequest, match=f"no preset {name!r}; there is careful, plain"):
        _presets().check(name)
    with pytest.raises(BadRequest):
        _applied("careful", preset=name)


def test_without_presets_every_name_is_unknown() -> None:
    presets = Presets({}, [])
    assert not presets
    presets.check(None)
    with pytest.raises(BadRequest, match="no preset is configured"):
        presets.check("x")


@pytest.mark.parametrize(
    ("name", "preset", "message"),
    [
        (
            "x",
            PresetSettings(upstream="nope"),
            r"presets\.x\.upstream names 'nope'; there is docs, gpt",
        ),
        ("docs", PresetSettings(), r"presets\.docs has the name of an upstream"),
    ],
)
def test_presets_that_cannot_work_are_refused(
    name: str, preset: PresetSettings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _presets(**{name: preset})


@pytest.mark.parametrize("route", ["auto", "local_small", "cloud_large"])
def test_a_preset_may_leave_the_upstream_to_the_router(route: str) -> None:
    assert _presets(x=PresetSettings(upstream=route))


# ------------------------------------------------------------------------------ on stage

PRESETS = {
    "careful": {"upstream": "script", "model": "big", "system": "Be brief.", "history_messages": 2}
}


async def _asked(stage: Stage, **values: Any) -> Any:
    asked = await stage.ask(**values)
    await stage.finish(asked, *texts("a"), DONE)
    return asked


async def test_a_session_keeps_the_preset_that_it_was_created_with(tmp_path: Path) -> None:
    async with on_stage(tmp_path, presets=PRESETS) as stage:
        first = await _asked(stage, preset="careful")
        session = await stage.supervisor.get_session(OWNER, first.run.session_id)
        assert session.preset == "careful"
        assert (first.run.model, first.run.route_reason) == ("big", "asked for by name")
        for _ in range(2):
            last = await _asked(stage, session_id=session.id)
        ask = last.call.ask
        assert (ask.model, ask.system, len(ask.history)) == ("big", "Be brief.", 2)
        again = await stage.supervisor.regenerate(stage.question(""), last.run.message_id)
        (await stage.upstream.called(4)).push(*texts("b"), DONE)
        await stage.read(again.run.id)
        assert stage.upstream.calls[3].ask.system == "Be brief."


async def test_a_session_that_a_callers_key_names_has_its_preset_too(tmp_path: Path) -> None:
    async with on_stage(tmp_path, presets=PRESETS) as stage:
        named = {"session_key": "mine", "dialect": "plain"}
        await _asked(stage, preset="careful", **named)
        second = await _asked(stage, **named)
        assert second.call.ask.system == "Be brief."
        other = await _asked(stage, preset="careful", system="No.", **named)
        assert other.call.ask.system == "No."


async def test_an_unknown_preset_asks_nothing(tmp_path: Path) -> None:
    async with on_stage(tmp_path, presets=PRESETS) as stage:
        with pytest.raises(BadRequest):
            await stage.supervisor.ask(stage.question(preset="nope"))
        assert stage.store.applied == []


async def test_p8_the_preset_of_somebody_elses_session_is_not_looked_at(tmp_path: Path) -> None:
    async with on_stage(tmp_path, presets=PRESETS) as stage:
        session = a_session(owner=STRANGER, preset="careful")
        await commit(stage.store.inner, CreateSession(session))
        with pytest.raises(NotFound):
            await stage.supervisor.ask(stage.question(session_id=session.id))


@pytest.mark.parametrize(("presets", "reads"), [({}, 0), (PRESETS, 1)])
async def test_sessions_are_looked_up_only_where_presets_are_configured(
    tmp_path: Path, presets: dict[str, Any], reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_stage(tmp_path, presets=presets) as stage:
        first = await _asked(stage)
        looked_up: list[str] = []
        inner = stage.store.get_session

        async def get_session(owner: str, session_id: str) -> Any:
            looked_up.append(session_id)
            return await inner(owner, session_id)

        monkeypatch.setattr(stage.store, "get_session", get_session)
        await _asked(stage, session_id=first.run.session_id)
        assert len(looked_up) == reads
        await _asked(stage, session_key=None)
        assert len(looked_up) == reads


async def test_presets_that_do_not_fit_the_upstreams_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Stage(tmp_path, presets={"script": {}})
