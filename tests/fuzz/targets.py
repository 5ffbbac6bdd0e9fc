"""What is fuzzed: each decoder with every dialect behind it, and the parts of decoders."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder
from holdfast.upstreams.dify.decoder import DifyDecoder
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.ragflow.decoder import RagflowDecoder
from tests.fuzz import decoder_laws, dialect_laws, part_laws
from tests.fuzz.decoder_laws import LIMITS, Form, Make
from tests.fuzz.mutations import TEXTS
from tests.fuzz.trial import Trial
from tests.support.corpus import find_cases, log_of


class Target(NamedTuple):
    """Something that is fuzzed.

    Attributes:
        seeds: Good input.
        variants: How many forms of it are tried.
        check: Raises where a law is broken.
    """

    seeds: Sequence[bytes]
    variants: int
    check: Callable[[Trial], None]


def decoder_target(folders: Sequence[str], forms: Sequence[Form]) -> Target:
    """A decoder whose cases are in these folders of the corpus."""

    def check(trial: Trial) -> None:
        form = forms[trial.variant // len(LIMITS)]
        for items in decoder_laws.check(form, trial):
            dialect_laws.check(log_of(items), trial.at)

    seeds = [case.body for case in find_cases(*folders)]
    return Target(seeds, len(forms) * len(LIMITS), check)


# ---------------------------------------------------------------------- decoders


def _anythingllm(text: str) -> Any:
    return {"type": "textResponseChunk", "textResponse": text}


def _dify(text: str) -> Any:
    return {"event": "message", "answer": text}


def _dify_agent(text: str) -> Any:
    return {"event": "agent_message", "answer": text}


def _openai(text: str) -> Any:
    return {"choices": [{"delta": {"content": text}}]}


def _ragflow(text: str) -> Any:
    return {"code": 0, "data": {"answer": text, "final": False}}


def _ragflow_agent(text: str) -> Any:
    return {"event": "message", "data": {"content": text}}


def _openai_of(style: Style, *, loose: bool, think_tags: bool = True) -> Make:
    def make(limits: LimitSettings) -> Decoder:
        citations = CitationTranslator(style, loose=loose)
        return OpenAIDecoder(limits, citations, think_tags=think_tags)

    return make


def _openai_in_full(limits: LimitSettings) -> Decoder:
    """One that decodes every frame in full."""
    decoder = OpenAIDecoder(limits)
    decoder._repetition.content = lambda data: None  # type: ignore[method-assign]
    return decoder


def _dify_of(base_url: str, *, think_tags: bool = True) -> Make:
    return lambda limits: DifyDecoder(limits, base_url=base_url, think_tags=think_tags)


def _first_question(limits: LimitSettings) -> Decoder:
    """One to which the server may answer that it has no session, or wants no messages."""
    decoder = RagflowDecoder(limits, agent=True)
    decoder.awaits_session = decoder.offers_messages = True
    return decoder


_FORMS: Final = {
    "anythingllm": [Form(AnythingLLMDecoder, _anythingllm)],
    "dify": [
        Form(_dify_of("https://dify.example/v1"), _dify),
        Form(_dify_of("", think_tags=False), _dify_agent),
    ],
    "openai": [
        Form(OpenAIDecoder, _openai, _openai_in_full),
        Form(_openai_of(Style.PLACE, loose=True, think_tags=False), _openai),
        Form(_openai_of(Style.KEY, loose=False), _openai),
        Form(_openai_of(Style.NUMBER, loose=True), _openai),
        Form(_openai_of(Style.NONE, loose=True), _openai),
    ],
    "ragflow": [
        Form(RagflowDecoder, _ragflow),
        Form(lambda limits: RagflowDecoder(limits, agent=True), _ragflow_agent),
        Form(_first_question),
    ],
}
_FOLDERS: Final = {"openai": ("openai", "openai_agents")}
"""Whose cases are tried; of the others those of their own name."""

# ---------------------------------------------------------------------- parts

_BODIES: Final = [case.body for case in find_cases()]
_PROSE: Final = [text.encode() for text in TEXTS] + [
    b"Kelp [ID:0] holds [ID: 1] (ID: 2) [ID 3] ##4$$ fast [1] [2]. 10 9999999999 x",
    "【ID：3】【2】 <think>Hm.</think> It `<think>` holds.\n**ERROR**: TIMEOUT - it".encode(),
    b"text **ERROR**: of prose\n**ERROR**: it broke",
    b"  <think>a</think>b</think><retrieving>c<br/>d</retrieving>e",
]
_HISTORY: Final = [
    msgspec.json.encode(
        {
            "history": [
                {"role": "user", "content": "How often is the valve serviced?", "sentAt": 1},
                {
                    "role": "assistant",
                    "content": "<think>Hm.</think>Every two years.",
                    "sources": [{"id": "a", "title": "a.pdf", "text": "Two years.", "score": 0.5}],
                    "metrics": {"prompt_tokens": 3},
                    "chatId": chat,
                },
            ]
        }
    )
    for chat in (7, None)
]

TARGETS: Final[dict[str, Target]] = {
    **{name: decoder_target(_FOLDERS.get(name, (name,)), forms) for name, forms in _FORMS.items()},
    "anythingllm-history": Target(_HISTORY, 2, part_laws.check_history),
    "citations": Target(_PROSE, 2 * len(Style), part_laws.check_citations),
    "lenient": Target(_BODIES, 1, part_laws.check_lenient),
    "references": Target(_BODIES, 3, part_laws.check_references),
    "refusal": Target(_BODIES, 3, part_laws.check_refusal),
    "sse": Target(_BODIES, len(part_laws.SIZES), part_laws.check_sse),
    "thinking": Target(_PROSE, 2, part_laws.check_thinking),
    "told-errors": Target(_PROSE, 1, part_laws.check_told_errors),
}
"""By name."""
