from holdfast.upstreams.ragflow.text import Change, Kind, RunningText

TEXT, THOUGHT, PROGRESS, REWRITE = Kind.TEXT, Kind.THOUGHT, Kind.PROGRESS, Kind.REWRITE


def pieces(*texts: str, running: RunningText | None = None) -> list[Change]:
    running = running or RunningText()
    return [change for text in texts for change in running.take_piece(text, thought=False)]


def wholes(*texts: str, running: RunningText | None = None) -> list[Change]:
    running = running or RunningText()
    return [change for text in texts for change in running.take_whole(text)]


def test_pieces_are_what_they_say() -> None:
    assert pieces("<think>a", "b</think>", "C", "<retrieving>d</retrieving>E") == [
        (THOUGHT, "a"),
        (THOUGHT, "b"),
        (TEXT, "C"),
        (PROGRESS, "d"),
        (TEXT, "E"),
    ]


def test_wholes_become_what_they_add() -> None:
    assert wholes("<think>a</think>", "<think>ab</think>C", "<think>ab</think>CD") == [
        (THOUGHT, "a"),
        (THOUGHT, "b"),
        (TEXT, "C"),
        (TEXT, "D"),
    ]


def test_a_whole_after_pieces_is_compared_with_them() -> None:
    running = RunningText()
    running.take_piece("a", thought=True)
    pieces("B", " C", running=running)
    assert wholes("<think>a</think>B C", running=running) == []
    assert wholes("<think>ax</think>B! C", running=running) == [(THOUGHT, "x"), (REWRITE, "B! C")]
    assert pieces(" D", running=running) == [(TEXT, " D")]


def test_what_is_held_belongs_to_its_kind() -> None:
    running = RunningText()
    assert pieces("A <", running=running) == [(TEXT, "A ")]
    assert running.take_piece("b *", thought=True) == [(TEXT, "<"), (THOUGHT, "b ")]
    assert pieces("C", running=running) == [(THOUGHT, "*"), (TEXT, "C")]
    assert running.flush() == []


def test_what_a_whole_held_is_in_the_next_or_comes_out_at_the_end() -> None:
    running = RunningText()
    assert wholes("A <thi", "A <thing", "A <thing <", running=running) == [
        (TEXT, "A "),
        (TEXT, "<thing"),
        (TEXT, " "),
    ]
    assert running.flush() == [(TEXT, "<")]
    assert running.flush() == []


def test_an_error_takes_nothing_back() -> None:
    running = RunningText()
    assert wholes("A b", "A\n**ERROR**: no", running=running) == [(TEXT, "A b")]
    assert running.error == "no"
    assert wholes("X", running=running) == []


def test_a_frozen_text_only_grows() -> None:
    running = RunningText()
    wholes("A", running=running)
    running.frozen = True
    assert wholes("A b", "X", running=running) == [(TEXT, " b")]


def test_whether_there_was_text() -> None:
    running = RunningText()
    assert running.is_empty
    running.take_piece("a", thought=True)
    assert running.is_empty
    running.take_piece("B", thought=False)
    assert not running.is_empty
