"""What happens to a question before its run is committed: its session, its preset, its route."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from holdfast import ids
from holdfast.engine.policy import ChatMessage, select_history
from holdfast.errors import BadRequest, TooLarge
from holdfast.events import RunStart
from holdfast.runner.asking import Question, prepare
from holdfast.runner.presets import Presets
from holdfast.runner.router import Route, Router, given
from holdfast.settings import Settings
from holdfast.store.port import CreateRun, SessionRecord, Store
from holdfast.upstreams.base import Upstream


class Prepared(NamedTuple):
    """A question that is ready to be committed."""

    question: Question
    """With its session, if there is one by now, and with what its preset says."""
    route: Route
    write: CreateRun
    start: RunStart


class Reception:
    """Takes questions in.

    Attributes:
        router: Chooses who answers.
        presets: The named configurations.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        upstreams: Mapping[str, Upstream],
        now: Callable[[], int],
    ) -> None:
        """Check that the settings fit the upstreams.

        Raises:
            ConfigError: They name an upstream that is not there.
        """
        self.router = Router(settings.router, upstreams)
        self.presets = Presets(settings.presets, upstreams)
        self._settings = settings
        self._store = store
        self._now = now

    def check(self, question: Question) -> None:
        """Pass for a question that can be asked.

        Raises:
            BadRequest: It says nothing, or nothing that can be stored.
            TooLarge: It is over its limit.
        """
        if not question.message.strip():
            raise BadRequest("the message is empty")
        try:
            size = len(question.message.encode())
        except UnicodeEncodeError:
            raise BadRequest("the message holds half of a surrogate pair") from None
        bound = self._settings.limits.question_bytes
        if size > bound:
            raise TooLarge(f"the message has {size} bytes; at most {bound} are allowed")

    async def prepare(self, question: Question, upstream: Upstream | None = None) -> Prepared:
        """Find out everything that is committed with a question.

        Args:
            question: The request.
            upstream: An upstream that is not in the configuration.

        Raises:
            BadRequest: It names an upstream or a preset that does not exist.
            StoreUnavailable: The session cannot be looked up.
        """
        question, session = await self._find_session(question)
        question = self.presets.apply(question, session.preset if session else None)
        if upstream is not None:
            route = given(upstream)
        else:
            route = self.router.route(
                question.upstream, question.message, await self._history_chars(question)
            )
        write, start = prepare(question, route, self._settings.runs.on_disconnect, self._now())
        return Prepared(question, route, write, start)

    async def _find_session(self, question: Question) -> tuple[Question, SessionRecord | None]:
        """Replace a session key by the session that it names, if there is one by now.

        Of a session that is named by its id nothing is needed but, where there are any, its
        preset; whether it exists is decided when the run is created.
        """
        key, owner = question.session_key, question.owner
        if question.session_id is not None:
            if not self.presets or question.preset is not None:
                return question, None
            return question, await self._store.get_session(owner, question.session_id)
        if key is None:
            return question, None
        session = await self._store.find_session(owner, question.dialect, key)
        if session is None:
            session = await self._store.get_session(owner, key)
        if session is None:
            return question, None
        return msgspec.structs.replace(question, session_id=session.id), session

    async def _history_chars(self, question: Question) -> int:
        """How much was said before, as far as the router wants to know."""
        if not self.router.weighs_history(question.upstream):
            return 0
        history = question.history or ()
        if question.history is None and question.session_id is not None:
            before = question.question_id or question.retire_from or ids.new_id(self._now())
            history = await self.history(question, question.session_id, before)
        return sum(len(message.content) for message in history)

    async def history(
        self, question: Question, session_id: str, question_id: str
    ) -> Sequence[ChatMessage]:
        """The earlier turns that an upstream is given.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        if question.history is not None:
            return question.history
        runs = self._settings.runs
        messages = question.history_messages
        if messages is None:
            messages = runs.history_messages
        turns = await self._store.list_turns(session_id, question_id, messages)
        return select_history(turns, messages, runs.history_chars)
