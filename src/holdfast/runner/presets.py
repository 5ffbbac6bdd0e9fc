"""Presets: named configurations that the questions of a session are asked with."""

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from holdfast.errors import BadRequest, ConfigError
from holdfast.runner.asking import Question
from holdfast.runner.router import known
from holdfast.settings import PresetSettings
from holdfast.settings.tables import ROUTES

SYSTEM_ROLES: Final = frozenset({"system", "developer"})

logger = logging.getLogger(__name__)


class Presets:
    """Knows the presets by name."""

    def __init__(self, presets: Mapping[str, PresetSettings], upstreams: Collection[str]) -> None:
        """Check that they fit the upstreams of these names.

        Raises:
            ConfigError: One does not.
        """
        check_presets(presets, upstreams)
        self._presets = presets

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._presets)

    def check(self, name: str | None) -> None:
        """Pass for the name of a preset, and for none.

        Raises:
            BadRequest: There is no such preset.
        """
        if name is not None and name not in self._presets:
            there = ", ".join(sorted(self._presets))
            are = f"there is {there}" if there else "no preset is configured"
            raise BadRequest(f"there is no preset {name!r}; {are}")

    def apply(self, question: Question, stored: str | None = None) -> Question:
        """The question with everything that its preset says and it does not, then its defaults.

        Args:
            question: The question; a preset of its own beats that of its session.
            stored: The preset of its session. One that is not configured any more is left out:
                the conversation must go on.

        Raises:
            BadRequest: The question names a preset that does not exist.
        """
        question = self._with_preset(question, stored)
        return msgspec.structs.replace(question, **_left_open(question, question.defaults))

    def _with_preset(self, question: Question, stored: str | None) -> Question:
        self.check(question.preset)
        name = question.preset or stored
        preset = self._presets.get(name or "")
        if preset is None:
            if name is not None:
                logger.warning("a session has the preset %r, which is not configured", name)
            return question
        said = preset.model_dump(exclude_none=True)
        if question.upstream not in (None, preset.upstream):
            said.pop("model", None)  # a model belongs to its upstream
        if question.chat is not None and has_system(question.chat):
            said.pop("system", None)
        fresh = _left_open(question, said)
        if question.chat is not None:
            fresh["chat"] = filled(question.chat, fresh)
        return msgspec.structs.replace(question, **fresh)


def check_presets(presets: Mapping[str, PresetSettings], upstreams: Collection[str]) -> None:
    """Pass if the presets fit the upstreams of these names.

    Raises:
        ConfigError: One names an upstream that is not there, or has the name of one. (Clients of
            the OpenAI API choose presets and upstreams in the same place.)
    """
    for name, preset in presets.items():
        if name in upstreams:
            raise ConfigError(f"presets.{name} has the name of an upstream: choose another")
        if preset.upstream not in (None, *ROUTES, *upstreams):
            raise ConfigError(
                f"presets.{name}.upstream names {preset.upstream!r}; {known(upstreams)}"
            )


def _left_open(question: Question, said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if getattr(question, key) is None}


def has_system(chat: Mapping[str, Any]) -> bool:
    """Whether an OpenAI client's request has instructions of its own."""
    messages = chat.get("messages")
    roles = [one.get("role") for one in messages or () if isinstance(one, Mapping)]
    return not SYSTEM_ROLES.isdisjoint(roles)


def filled(chat: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAI client's request with what it leaves open."""
    body = dict(chat)
    body |= {key: fresh[key] for key in ("temperature", "max_tokens") if key in fresh}
    if "system" in fresh:
        system = {"role": "system", "content": fresh["system"]}
        body["messages"] = [system, *body.get("messages", ())]
    return body
