"""Citation marks in streamed text: from the upstream's own form to `[n]`.

Readers see `[n]`, n being the `ordinal` of a reference, and the event's `marks` tell such a mark
from a literal "[1]" that the model wrote. What stands for a mark depends on the upstream:

    PLACE    `[ID:0]`, `[ID: 0]`, `【ID：0】`, `##0$$`, `(ID: 0)`, `[ID 0]`: the number is the place
             of the reference in its list, from 0, and the ordinal is that place plus one.
    KEY      The same forms, but the number is a key of any kind. Ordinals go by the first mark;
             references that no mark names come after.
    NUMBER   `[1]`, `【1】`: the number is the ordinal of a reference that is known before.
    NONE     No mark at all.

Text at the end of a delta that may be the beginning of a mark is held until it is decided, so a
mark never spans two events. Nothing else is held: the ordinal of a whole mark is certain at once,
although its reference often comes only at the end of the answer.

A mark may name no reference. If the references are known by then, it is left as the upstream
wrote it, as text. If they come later and lack it, the mark has been sent and stays; readers show
a mark whose ordinal no reference has as the text that it is.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from holdfast.events import Mark

Translated: TypeAlias = tuple[str, tuple[Mark, ...]]
"""A text and the marks in it; their offsets count from the beginning of this text."""


MAX_NUMBER: Final = 999_999_999
"""An upstream's number that is larger is no ordinal."""
MAX_KEYS: Final = 20_000
"""So many keys are known: all that marks can have, and as many of references."""


class Style(StrEnum):
    """What an upstream's marks look like and what their numbers mean."""

    PLACE = "place"
    KEY = "key"
    NUMBER = "number"
    NONE = "none"


_ID_MARK: Final = re.compile(
    r"\[ ?ID ?[:：] ?(\d{1,4}) ?\]"
    r"|【 ?ID ?[:： ] ?(\d{1,4}) ?】"
    r"|##(\d{1,4})\$\$"
    r"|\( ?ID ?[:： ] ?(\d{1,4}) ?\)"
    r"|\[ ?ID (\d{1,4}) ?\]"
)
_FIRST_LOOSE_GROUP: Final = 4
_ID_MARK_BEGUN: Final = re.compile(
    r"[\[(【] ?(?:I(?:D ?[:：]? ?(?:\d{1,4} ?)?)?)?\Z|#(?:#(?:\d{1,4}\$?)?)?\Z"
)
_NUMBER_MARK: Final = re.compile(r"\[(\d{1,4})\]|【(\d{1,4})】")
_NUMBER_MARK_BEGUN: Final = re.compile(r"[\[【]\d{0,4}\Z")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_NEVER: Final = re.compile(r"(?!)")

_FORMS: Final = {
    Style.PLACE: (_ID_MARK, _ID_MARK_BEGUN),
    Style.KEY: (_ID_MARK, _ID_MARK_BEGUN),
    Style.NUMBER: (_NUMBER_MARK, _NUMBER_MARK_BEGUN),
    Style.NONE: (_NEVER, _NEVER),
}


class CitationTranslator:
    """Translates the marks of one answer, which is fed to it delta by delta."""

    def __init__(self, style: Style = Style.PLACE, *, loose: bool = True) -> None:
        """Begin before the first text.

        Args:
            style: What the upstream's marks are.
            loose: Whether `(ID: 0)` and `[ID 0]`, which ordinary prose may have too, count from
                the start. Otherwise they count once another mark, or references, showed that
                this upstream cites.
        """
        self.first_place = 1 if style is Style.NUMBER else 0
        """The key of the first of the references that have only a place."""
        self._style = style
        self._mark, self._begun = _FORMS[style]
        self._loose = loose
        self._held = ""
        self._ordinals: dict[str, int] = {}  # by key, of marks and references
        self._taken: set[int] = set()
        self._last = 0
        self._known = False  # whether the references are

    def feed(self, text: str) -> Translated:
        """Take more text; give all text so far that is certain and was not given yet."""
        if not self._held and not (
            "[" in text or "##" in text or "(" in text or "【" in text or text[-1:] == "#"
        ):
            return text, ()
        text = self._held + text
        begun = self._begun.search(text)
        cut = begun.start() if begun else len(text)
        self._held = text[cut:]
        return self._translate(text[:cut])

    def flush(self) -> str:
        """Give what is held, which is no mark: the answer ends or is interrupted here."""
        text, self._held = self._held, ""
        return text

    def rewrite(self, text: str) -> Translated:
        """Translate a text that replaces all text so far."""
        self._held = ""
        return self._translate(text)

    def number(self, keys: Sequence[str]) -> list[int]:
        """The ordinals of the references with these keys, in their order.

        From now on these, and those that marks named before, are the known references. The keys
        of references that have only a place are "0", "1", ... (for NUMBER "1", "2", ...).
        """
        self._known = self._loose = True
        if self._style is Style.NUMBER:
            return [self._ordinal(key, self._number(key)) for key in keys]
        if self._style is Style.PLACE and list(keys) == [str(n) for n in range(len(keys))]:
            return [self._ordinal(key, self._free(place)) for place, key in enumerate(keys, 1)]
        return [self._ordinal(key, self._last + 1) for key in keys]

    def reopen(self) -> None:
        """Expect further references: a mark that names none of those known names one to come."""
        self._known = False

    def claim(self, key: str, ordinal: int) -> None:
        """Let the reference with this key have this ordinal, unless either has another already."""
        if 0 < ordinal <= MAX_NUMBER and ordinal not in self._taken:
            self._ordinal(key, ordinal)

    def _number(self, key: str) -> int:
        """The ordinal that a key of NUMBER is, if no other has it; else a new one."""
        return self._free(int(key)) if _NUMBER.fullmatch(key) else self._last + 1

    def _free(self, ordinal: int) -> int:
        return self._last + 1 if ordinal in self._taken else ordinal

    def _ordinal(self, key: str, new: int) -> int:
        ordinal = self._ordinals.get(key)
        if ordinal is None:
            ordinal = new
            self._last = max(self._last, ordinal)
            if len(self._ordinals) < MAX_KEYS:
                self._ordinals[key] = ordinal
                self._taken.add(ordinal)
        return ordinal

    def _ordinal_of_mark(self, found: re.Match[str]) -> int | None:
        """The ordinal to show; None if what was found is only text."""
        group = found.lastindex or 0
        if group >= _FIRST_LOOSE_GROUP and not self._loose:
            return None
        self._loose = True
        number = int(found[group])
        if self._known or self._style is Style.NUMBER:
            return self._ordinals.get(str(number))
        return self._ordinal(
            str(number), number + 1 if self._style is Style.PLACE else self._last + 1
        )

    def _translate(self, text: str) -> Translated:
        marks: list[Mark] = []
        pieces: list[str] = []
        at = length = 0
        for found in self._mark.finditer(text):
            ordinal = self._ordinal_of_mark(found)
            if ordinal is None:
                continue
            before, mark = text[at : found.start()], f"[{ordinal}]"
            start = length + len(before)
            length = start + len(mark)
            marks.append((start, length, ordinal))
            pieces += (before, mark)
            at = found.end()
        if not marks:
            return text, ()
        pieces.append(text[at:])
        return "".join(pieces), tuple(marks)
