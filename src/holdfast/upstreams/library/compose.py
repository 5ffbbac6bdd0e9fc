"""Passages to an answer: a lead-in, the sentences that fit best, the passages in full.

The answer is Markdown in the language of the question, Chinese or English. Everything that is
taken from a document is followed by the mark of its reference.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.events import Mark, Reference, TextDelta
from holdfast.upstreams.library.folder import Skipped
from holdfast.upstreams.library.index import Contents
from holdfast.upstreams.library.passages import split_sentences
from holdfast.upstreams.library.query import Language, Query, Word, show_words
from holdfast.upstreams.library.ranking import Hit
from holdfast.upstreams.library.words import UNSPACED, index_terms
from holdfast.upstreams.pacing import split_text

MAX_SHOWN_FILES: Final = 5
KEY_SENTENCES: Final = 3
KEY_SENTENCE_WIDTHS: Final = range(40, 400)
"""How wide a sentence may be to stand alone; unspaced characters count 2."""

_MARKER: Final = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_UNFIT: Final = re.compile(r"\s*(?:[|>#]|```|~~~)")
_UNSPACED: Final = re.compile(f"[{UNSPACED}]")


class Composed(msgspec.Struct, frozen=True):
    """A whole answer; offsets in `marks` count code points of `text`."""

    text: str
    marks: tuple[Mark, ...] = ()
    references: tuple[Reference, ...] = ()


class _Wording(msgspec.Struct, frozen=True):
    """The sentences of one language."""

    lead: str
    key_sentences: str
    source: str
    source_section: str
    missing: str
    nothing: str
    no_words: str
    searched: str
    skipped: str
    more: str
    quote: str
    comma: str
    last_comma: str


_WORDINGS: Final = {
    Language.ENGLISH: _Wording(
        lead="Here is what the documents say about {words}.",
        key_sentences="**In short**",
        source="From **{title}**:",
        source_section="From **{title}** ({section}):",
        missing="They do not mention {words}.",
        nothing="I found nothing about {words} in the documents.",
        no_words="There is no word in this question that could be searched for.",
        searched="Documents searched: {count}.",
        skipped="Not searched: {files}.",
        more="{count} more",
        quote="“{}”",
        comma=", ",
        last_comma=" and ",
    ),
    Language.CHINESE: _Wording(
        lead="关于{words}，文档中是这样说的。",
        key_sentences="**要点**",
        source="摘自**《{title}》**：",
        source_section="摘自**《{title}》**（{section}）：",
        missing="文档中没有提到{words}。",
        nothing="在文档中没有找到关于{words}的内容。",
        no_words="这个问题里没有可以检索的词。",
        searched="已检索的文档数：{count}。",
        skipped="未检索：{files}。",
        more="另有 {count} 个",
        quote="“{}”",
        comma="、",
        last_comma="和",
    ),
}


class _Page:
    """The answer as it is being written."""

    def __init__(self, wording: _Wording) -> None:
        self.wording = wording
        self._parts: list[str] = []
        self._length = 0
        self.marks: list[Mark] = []

    def write(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def cite(self, ordinal: int) -> None:
        mark = f"[{ordinal}]"
        self.marks.append((self._length, self._length + len(mark), ordinal))
        self.write(mark)

    @property
    def text(self) -> str:
        return "".join(self._parts)


def compose(
    query: Query,
    hits: Sequence[Hit],
    contents: Contents,
    *,
    unknown: frozenset[str],
    reference_bytes: int,
) -> Composed:
    """Write the answer to a question.

    Args:
        query: The question.
        hits: The passages to quote, best first; none means that nothing was found.
        contents: What was searched.
        unknown: Terms that no document holds.
        reference_bytes: How much text a reference may have.
    """
    page = _Page(_WORDINGS[query.language])
    if not hits:
        return Composed(_nothing(query, contents, page.wording))
    missing = [word for word in query.words if word.strong_terms <= unknown]
    present = [word for word in query.words if word not in missing]
    page.write(page.wording.lead.format(words=_shown(present or query.words, page.wording)))
    if missing:
        page.write(_space(query.language))
        page.write(page.wording.missing.format(words=_shown(missing, page.wording)))
    _write_key_sentences(page, query, hits)
    for ordinal, hit in enumerate(hits, 1):
        _write_quotation(page, ordinal, hit)
    return Composed(page.text, tuple(page.marks), _references(hits, reference_bytes))


def _nothing(query: Query, contents: Contents, wording: _Wording) -> str:
    if query.words:
        first = wording.nothing.format(words=_shown(query.words, wording))
    else:
        first = wording.no_words
    sentences = [first, wording.searched.format(count=contents.documents)]
    if contents.skipped:
        sentences.append(wording.skipped.format(files=_files(contents.skipped, wording)))
    return _space(query.language).join(sentences)


def _space(language: Language) -> str:
    return "" if language is Language.CHINESE else " "


def _shown(words: Sequence[Word], wording: _Wording) -> str:
    quoted = [wording.quote.format(word) for word in show_words(words)]
    *others, last = quoted
    return wording.comma.join(others) + wording.last_comma + last if others else last


def _files(skipped: Sequence[Skipped], wording: _Wording) -> str:
    named = [f"`{file.path}` ({file.reason})" for file in skipped[:MAX_SHOWN_FILES]]
    if len(skipped) > MAX_SHOWN_FILES:
        named.append(wording.more.format(count=len(skipped) - MAX_SHOWN_FILES))
    return wording.comma.join(named)


def _write_key_sentences(page: _Page, query: Query, hits: Sequence[Hit]) -> None:
    """The sentence of each of the best passages that fits best, if it says enough by itself."""
    chosen = [
        (ordinal, sentence)
        for ordinal, hit in enumerate(hits[:KEY_SENTENCES], 1)
        if (sentence := _key_sentence(hit.passage.text, query))
    ]
    if chosen:
        page.write(f"\n\n{page.wording.key_sentences}\n")
    for ordinal, sentence in chosen:
        page.write(f"\n- {sentence} ")
        page.cite(ordinal)


def _key_sentence(text: str, query: Query) -> str | None:
    sentences = _plain_sentences(text)
    if len(sentences) < 2:
        return None  # the quotation says it, with nothing around it
    best, most = None, 0.0
    for sentence in sentences:
        terms = set(index_terms(sentence))
        weight = sum(weight for term, weight in query.weights.items() if term in terms)
        if weight > most and _width(sentence) in KEY_SENTENCE_WIDTHS:
            best, most = sentence, weight
    return best


def _plain_sentences(text: str) -> list[str]:
    """The sentences of prose and lists; code, tables and halves of an emphasis are no sentences."""
    sentences: list[str] = []
    for block in text.split("\n\n"):
        if not _UNFIT.match(block):
            for line in block.split("\n"):
                sentences += split_sentences(_MARKER.sub("", line))
    return [part for part in sentences if not (part.count("`") % 2 or part.count("**") % 2)]


def _width(text: str) -> int:
    return len(text) + len(_UNSPACED.findall(text))


def _write_quotation(page: _Page, ordinal: int, hit: Hit) -> None:
    passage = hit.passage
    source = page.wording.source_section if passage.section else page.wording.source
    page.write("\n\n" + source.format(title=hit.title, section=passage.section) + "\n")
    for line in passage.text.split("\n"):
        page.write(f"\n> {line}".rstrip())
    last = passage.text.rpartition("\n")[2]
    # Behind the end of a code block or in a table the mark would become a part of it.
    page.write("\n>\n> " if _UNFIT.match(last) else " ")
    page.cite(ordinal)


def _references(hits: Sequence[Hit], max_bytes: int) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            ordinal=ordinal,
            document_id=hit.document,
            document_name=hit.title,
            chunk_id=chunk_id(hit),
            text=hit.passage.text.encode()[:max_bytes].decode(errors="ignore"),
            score=hit.score,
            positions=[[hit.passage.first_line, hit.passage.last_line]],
            extra={"section": hit.passage.section} if hit.passage.section else None,
        )
        for ordinal, hit in enumerate(hits, 1)
    )


def chunk_id(hit: Hit) -> str:
    """The passage's name: its document and its lines."""
    return f"{hit.document}#L{hit.passage.first_line}-L{hit.passage.last_line}"


def split_answer(composed: Composed, size: float) -> list[TextDelta]:
    """Cut an answer into deltas of about `size` characters (see `split_text`)."""
    return list(split_text(composed.text, composed.marks, size))
