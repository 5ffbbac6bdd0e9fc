import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from holdfast.engine.fold import Answer, fold
from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, Finish, Notice, Reason, References, Step, TextDelta
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange, Health, Item
from holdfast.upstreams.library import Library
from tests.support.scripted import ScriptedUpstream
from tests.support.sink import collect

DEMO_DOCUMENTS = Path(__file__).parents[2] / "src" / "holdfast" / "demo_documents"
ENGLISH_QUESTION = "What is a holdfast, and how does it hold on to the rock?"
CHINESE_QUESTION = "中国有哪些茶？"


class FakeClock:
    """Time that passes only in `sleep`, with a given delay of each waking."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.time = 1_000.0
        self.late_s = late_s
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds + self.late_s


class Reading:
    """A library over a folder, and what it answers."""

    def __init__(self, home: Path, documents: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        table = {"path": documents, "index": home / "docs.library.db", "pace": 0} | settings
        self.library = Library(
            "docs",
            Library.Settings.model_validate(table),
            LimitSettings(),
            sleep=self.clock.sleep,
            now=self.clock.now,
        )
        self.exchange = Exchange()

    async def batches(
        self, question: str, history: Sequence[ChatMessage] = ()
    ) -> list[Sequence[Item]]:
        self.exchange = Exchange()
        ask = Ask("run", "session", "message", question, history)
        return [batch async for batch in self.library.items(ask, self.exchange)]

    async def answered(self, question: str) -> list[Item]:
        """What a run is given."""
        self.exchange = Exchange()
        return await collect(
            self.library, Ask("run", "session", "message", question), self.exchange
        )

    async def items(self, question: str, history: Sequence[ChatMessage] = ()) -> list[Item]:
        return [item for batch in await self.batches(question, history) for item in batch]

    async def answer(self, question: str, history: Sequence[ChatMessage] = ()) -> Answer:
        return fold(events_of(await self.items(question, history)))


def events_of(items: Sequence[Item]) -> list[Event]:
    return [item for item in items if not isinstance(item, UpstreamEnd)]


def deltas_of(items: Sequence[Item]) -> list[TextDelta]:
    return [item for item in items if isinstance(item, TextDelta)]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "tides.md").write_text("# Tides\n\nThe tide comes twice a day.", "utf-8")
    (folder / "潮汐.md").write_text("# 潮汐\n\n海水每天涨落两次。", "utf-8")
    return folder


@pytest.fixture
async def reading(tmp_path: Path, documents: Path) -> AsyncIterator[Reading]:
    reading = Reading(tmp_path, documents)
    await reading.library.open()
    yield reading
    await reading.library.close()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Reading]:
    demo = Reading(tmp_path, DEMO_DOCUMENTS, pace=80)
    await demo.library.open()
    yield demo
    await demo.library.close()


async def test_an_answer_is_a_step_then_references_then_text_then_the_end(
    reading: Reading,
) -> None:
    items = await reading.items("When do tides come?")
    assert [type(item) for item in items[:3]] == [Step, References, TextDelta]
    assert items[0] == Step("searching", "tides")
    assert items[-1] == UpstreamEnd(finish=Finish.STOP)
    answer = fold(events_of(items))
    assert answer.text.endswith("> The tide comes twice a day. [1]")
    assert answer.references[0].document_id == "tides.md"


async def test_the_references_come_before_the_first_mark_and_marks_point_at_them(
    demo: Reading,
) -> None:
    answer = await demo.answer(ENGLISH_QUESTION)
    ordinals = [reference.ordinal for reference in answer.references]
    assert ordinals == list(range(1, len(ordinals) + 1))
    assert {ordinal for _, _, ordinal in answer.marks} == set(ordinals)
    for start, end, ordinal in answer.marks:
        assert answer.text[start:end] == f"[{ordinal}]"


@pytest.mark.parametrize(
    ("question", "document"),
    [
        (ENGLISH_QUESTION, "kelp-and-holdfasts.md"),
        (CHINESE_QUESTION, "tea.zh.md"),
        ("How does a write-ahead log keep data safe when a server is killed?", None),
    ],
)
async def test_a_sample_question_streams_for_twenty_seconds_and_more(
    demo: Reading, question: str, document: str | None
) -> None:
    answer = await demo.answer(question)
    assert len(answer.text) >= 1_700
    assert sum(demo.clock.slept) >= 20
    assert len(answer.references) >= 3
    assert document in (None, answer.references[0].document_id)


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("潮汐", "tides.zh.md"),
        ("海带的固着器", "seaweed.zh.md"),
        ("什么是预写日志？", "write-ahead-log.zh.md"),
        ("why are spring tides so high", "tides.md"),
        ("What is a Fresnel lens?", "lighthouses.md"),
        ("Last-Event-ID", "server-sent-events.md"),
        ("What happens on kill -9?", "kill-9.md"),
        ("group commit", "fsync-and-group-commit.md"),
        ("checkpoints in SQLite", "write-ahead-logging.md"),
        ("Where does the name Holdfast come from?", "holdfast-in-short.md"),
        ("licence of these documents", "SOURCES.md"),
    ],
)
async def test_questions_about_the_shipped_documents_find_the_right_one(
    demo: Reading, question: str, document: str
) -> None:
    assert (await demo.answer(question)).references[0].document_id == document


@pytest.mark.parametrize("question", ["量子色动力学", "What is a zebra?", "", "🙂", '"'])
async def test_nothing_found_is_a_completed_answer_without_references(
    demo: Reading, question: str
) -> None:
    items = await demo.items(question)
    assert not any(isinstance(item, References) for item in items)
    assert items[-1] == UpstreamEnd(finish=Finish.STOP)
    assert deltas_of(items)
    assert demo.exchange.response == {"passages": []}


async def test_the_exchange_tells_what_was_searched_for_and_found(reading: Reading) -> None:
    await reading.items("When do tides come?")
    assert reading.exchange.request == {"query": "When do tides come?", "terms": {"tide": 1.0}}
    assert reading.exchange.response == {"passages": [{"id": "tides.md#L3-L3", "score": 1.0}]}


async def test_a_question_that_only_points_back_asks_about_the_same(reading: Reading) -> None:
    history = [ChatMessage("user", "When do tides come?"), ChatMessage("assistant", "Daily.")]
    answer = await reading.answer("and why do they?", history)
    assert answer.references[0].document_id == "tides.md"


async def test_pieces_come_at_their_pace_and_no_more_than_some_in_a_second(
    demo: Reading,
) -> None:
    demo.clock.late_s = 0.003
    start, sent, times = demo.clock.time, 0, []
    ask = Ask("run", "session", "message", ENGLISH_QUESTION)
    async for batch in demo.library.items(ask, Exchange()):
        for delta in deltas_of(batch):
            assert demo.clock.time - start == pytest.approx(sent / 80, abs=0.004)
            sent += len(delta.text)
            times.append(demo.clock.time)
    assert len(times) / (times[-1] - times[0]) <= 26
    assert max(after - before for before, after in pairwise(times)) < 0.6


async def test_after_a_stall_the_answer_catches_up_without_sleeping(demo: Reading) -> None:
    ask = Ask("run", "session", "message", ENGLISH_QUESTION)
    async for batch in demo.library.items(ask, Exchange()):
        if deltas_of(batch) and not demo.clock.slept:
            demo.clock.time += 1_000
    assert demo.clock.slept == []


async def test_without_a_pace_the_text_is_given_at_once(reading: Reading) -> None:
    batches = await reading.batches("tides")
    assert len([batch for batch in batches if deltas_of(batch)]) == 1
    assert reading.clock.slept == []


async def test_an_answer_can_be_left_in_the_middle(demo: Reading) -> None:
    answer = demo.library.items(Ask("r", "s", "m", ENGLISH_QUESTION), Exchange())
    async for batch in answer:
        if deltas_of(batch):
            break
    await answer.aclose()
    assert (await demo.answer(ENGLISH_QUESTION)).references


async def test_an_answer_can_be_cancelled_while_it_waits(tmp_path: Path) -> None:
    asleep = anyio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await anyio.sleep_forever()

    settings = Library.Settings(path=DEMO_DOCUMENTS, index=tmp_path / "library.db")
    library = Library("docs", settings, LimitSettings(), sleep=sleep)
    seen: list[Item] = []

    async def read() -> None:
        async for batch in library.items(Ask("r", "s", "m", ENGLISH_QUESTION), Exchange()):
            seen.extend(batch)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await asleep.wait()
        tasks.cancel_scope.cancel()
    assert deltas_of(seen)
    assert not any(isinstance(item, UpstreamEnd) for item in seen)
    await library.close()


async def test_many_questions_at_once_are_all_answered(reading: Reading) -> None:
    answers: list[Answer] = []

    async def ask(question: str) -> None:
        answers.append(await reading.answer(question))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, ("tides", "潮汐")[number % 2])
    assert sorted(answer.references[0].document_id or "" for answer in answers) == (
        ["tides.md"] * 10 + ["潮汐.md"] * 10
    )


async def test_changes_in_the_folder_are_seen_by_later_questions(
    reading: Reading, documents: Path
) -> None:
    assert not (await reading.answer("kelp")).references
    (documents / "kelp.md").write_text("Kelp holds on.")
    reading.clock.time += 10
    assert (await reading.answer("kelp")).references
    (documents / "kelp.md").unlink()
    reading.clock.time += 10
    assert not (await reading.answer("kelp")).references


async def test_a_folder_that_is_not_there_is_an_honest_end(tmp_path: Path) -> None:
    reading = Reading(tmp_path, tmp_path / "nowhere")
    await reading.library.open()
    assert (await reading.items("tides"))[1:] == [
        UpstreamEnd(
            reason=Reason.UPSTREAM_UNREACHABLE,
            error="the folder of documents cannot be read: No such file or directory",
        )
    ]
    health = await reading.library.check()
    assert not health.ok
    assert "cannot be read" in health.detail
    await reading.library.close()


async def test_a_check_says_what_is_searched_and_what_is_not(
    tmp_path: Path, documents: Path
) -> None:
    (documents / "large.md").write_text("x" * 101)
    (documents / "out.md").symlink_to(os.devnull)
    reading = Reading(tmp_path, documents, max_file_bytes=100)
    await reading.library.open()
    assert await reading.library.check() == Health(
        True,
        "2 documents, 2 passages; not searched: large.md (larger than 100 bytes), "
        "out.md (leads out of the folder)",
    )
    assert [file.path for file in reading.library.skipped] == ["large.md", "out.md"]
    await reading.library.close()


async def test_a_check_does_not_wait_for_a_long_scan(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.library.upstream.CHECK_PATIENCE_S", 0)
    assert await reading.library.check() == Health(True, "the documents are still being read")


async def test_the_number_of_passages_and_their_size_are_bounded(
    tmp_path: Path, documents: Path
) -> None:
    for number in range(9):
        (documents / f"{number}.md").write_text(f"Kelp number {number} holds on to its rock.")
    limits = LimitSettings(references=2, reference_bytes=10)
    settings = Library.Settings(path=documents, index=tmp_path / "library.db", pace=0)
    library = Library("docs", settings, limits)
    items = [
        item
        async for batch in library.items(Ask("r", "s", "m", "kelp"), Exchange())
        for item in batch
    ]
    references = fold(events_of(items)).references
    assert [len(reference.text.encode()) for reference in references] == [10, 10]
    await library.close()


async def test_the_index_stands_in_the_current_folder_under_the_upstreams_name(
    tmp_path: Path, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    library = Library("my/docs", Library.Settings(path=Path("documents")), LimitSettings())
    assert (await library.check()).ok
    assert (tmp_path / "my_docs.library.db").exists()
    assert sorted(os.listdir(documents)) == ["tides.md", "潮汐.md"]
    await library.close()


# ------------------------------------------------------------------------------ with a writer


@asynccontextmanager
async def written(
    home: Path, documents: Path, *steps: Any, **settings: Any
) -> AsyncIterator[tuple[Reading, ScriptedUpstream]]:
    """A library that has a writer."""
    reading, writer = (
        Reading(home, documents, writer="model", **settings),
        ScriptedUpstream("model"),
    )
    writer.steps = steps
    reading.library.connect({"writer": writer})
    await reading.library.open()
    try:
        yield reading, writer
    finally:
        await reading.library.close()


async def test_a_writer_writes_and_its_marks_point_to_the_passages(
    tmp_path: Path, documents: Path
) -> None:
    said = [[TextDelta("Twice [")], [TextDelta("1]. Not [7].")], [UpstreamEnd()]]
    async with written(tmp_path, documents, *said) as (reading, writer):
        items = await reading.answered("When do tides come?")
    assert [type(item) for item in items[:4]] == [Step, References, Step, TextDelta]
    assert items[2] == Step("writing", "model")
    answer = fold(events_of(items))
    assert (answer.text, answer.marks) == ("Twice [1]. Not [7].", ((6, 9, 1),))
    assert answer.references[0].document_id == "tides.md"
    asked = writer.calls[0].ask
    assert "[1] Tides · tides.md\nThe tide comes twice a day." in asked.message
    assert asked.message.endswith("Question: When do tides come?")
    assert reading.exchange.request == {
        "query": "When do tides come?",
        "terms": {"tide": 1.0},
        "writer": None,
    }


@pytest.mark.parametrize("question", ["What is a zebra?", "海藻"])
async def test_where_nothing_is_found_no_writer_is_asked(
    tmp_path: Path, documents: Path, question: str
) -> None:
    async with written(tmp_path, documents) as (reading, writer):
        items = await reading.answered(question)
        assert writer.calls == []
    assert fold(events_of(items)).text.startswith(("I found nothing", "在文档中没有找到"))
    assert items[-1] == UpstreamEnd(finish=Finish.STOP)


async def test_a_writer_that_fails_leaves_the_quotations_at_their_pace(
    tmp_path: Path, documents: Path
) -> None:
    down = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error="nobody is there")
    async with written(tmp_path, documents, [down], pace=80) as (reading, _):
        items = await reading.answered("When do tides come?")
        assert sum(reading.clock.slept) > 0
    plain = Reading(tmp_path, documents)
    quoted = fold(events_of(await plain.items("When do tides come?")))
    await plain.library.close()
    answer = fold(events_of(items))
    assert (answer.text, answer.marks, answer.references) == (
        quoted.text,
        quoted.marks,
        quoted.references,
    )
    (notice,) = (item for item in items if isinstance(item, Notice))
    assert notice.message == "model is down, so the passages are quoted as they are"
    assert items[-1] == UpstreamEnd(finish=Finish.STOP)


async def test_without_documents_no_writer_is_asked(tmp_path: Path) -> None:
    async with written(tmp_path, tmp_path / "nowhere") as (reading, writer):
        items = await reading.answered("tides")
        assert writer.calls == []
    assert items[-1].reason is Reason.UPSTREAM_UNREACHABLE  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"path": "docs", "pace": -1},
        {"path": "docs", "pace": float("nan")},
        {"path": "docs", "passages": 0},
        {"path": "docs", "max_file_bytes": 0},
        {"path": "docs", "kind": "openai"},
        {"path": "docs", "depth": 3},
        {"path": "docs", "writer_timeout_s": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Library.Settings.model_validate(table)
