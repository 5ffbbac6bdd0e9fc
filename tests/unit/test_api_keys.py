"""Keys from a variable: what is taken, what is refused, and that no message quotes an entry."""

from pathlib import Path

import pytest

from holdfast.errors import ConfigError
from holdfast.settings import Settings, StorageSettings, load
from holdfast.settings.api_keys import GivenKey, digest_of, is_owner, parse_api_keys

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210-_.~+/="


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_api_keys(text, "environment")
    return caught.value.message


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            (f"alice:{KEY}", [("alice", KEY, ("chat",))]),
            (f"alice:{KEY},bob:{OTHER}", [("alice", KEY, ("chat",)), ("bob", OTHER, ("chat",))]),
            (f" alice:{KEY} ,\n bob:{OTHER} ,", [("alice", KEY, ("chat",)), ("bob", OTHER, None)]),
            (f"a@b.example:{KEY}:chat+debug", [("a@b.example", KEY, ("chat", "debug"))]),
            (f"海:{KEY}:admin", [("海", KEY, ("admin",))]),
            (f"a b:{'!' * 255}", [("a b", "!" * 255, None)]),
            (f"one:{KEY},one:{OTHER}", [("one", KEY, None), ("one", OTHER, None)]),
        ],
    )
    def test_takes_owners_keys_and_scopes(
        self, text: str, keys: list[tuple[str, str, tuple[str, ...] | None]]
    ) -> None:
        expected = [
            GivenKey(name, digest_of(key), scopes or ("chat",)) for name, key, scopes in keys
        ]
        assert list(parse_api_keys(text, "x")) == expected

    def test_keeps_no_key(self) -> None:
        assert KEY not in repr(parse_api_keys(f"alice:{KEY}", "x"))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (KEY, "entry 1 must be OWNER:KEY or OWNER:KEY:SCOPE+SCOPE"),
            (f":{KEY}", "entry 1 must be"),
            (f" :{KEY}", "entry 1 must be"),
            (f"a\tb:{KEY}", "entry 1 must be"),
            (f"alice :{KEY}", "entry 1 must be"),
            (f"{'x' * 256}:{KEY}", "entry 1 must be"),
            (f"alice:{KEY},,bob", "entry 3 must be"),
            (f"alice:{KEY}:chat:chat", "entry 1 must be"),
            ("alice:", "entry 1 needs a key of 16 to 255"),
            (f"alice:{KEY[:-1]}", "entry 1 needs a key of 16 to 255"),
            (f"alice:{'x' * 256}", "entry 1 needs a key of 16 to 255"),
            (f"alice:{KEY} {KEY}", "entry 1 needs a key"),
            (f"alice:{KEY}é", "entry 1 needs a key"),
            (f"alice:{KEY}:", "entry 1 has scopes that do not exist; there are chat, admin, debug"),
            (f"alice:{KEY}:root", "entry 1 has scopes that do not exist"),
            (f"alice:{KEY}:chat+chat", "entry 1 has scopes"),
            (f"alice:{KEY}:chat+", "entry 1 has scopes"),
            (f"a:{KEY},b:{OTHER},c:{KEY}", "keys 1 and 3 are the same"),
            (" , ", "is set, but lists no key"),
        ],
    )
    def test_what_is_malformed_is_told_without_quoting_it(self, text: str, told: str) -> None:
        message = refusal(text)
        assert message.startswith("HOLDFAST_API_KEYS (environment)")
        assert told in message
        for part in text.replace(",", ":").split(":"):
            assert len(part.strip()) < 4 or part.strip() in ("chat",) or part not in message


class TestOwners:
    @pytest.mark.parametrize("name", ["", " ", "a ", "a\n", "\x7f", "\ud800", "x" * 256, "海" * 86])
    def test_that_cannot_be(self, name: str) -> None:
        assert not is_owner(name)

    @pytest.mark.parametrize("name", ["a", "local", "a:b", "海" * 85, "a, b"])
    def test_that_can_be(self, name: str) -> None:
        assert is_owner(name)


class TestSettings:
    def test_have_the_keys_of_the_environment(self, tmp_path: Path) -> None:
        settings = load(environ={"HOLDFAST_API_KEYS": f"alice:{KEY}"}, folder=tmp_path)
        assert [key.owner for key in settings.api_keys] == ["alice"]
        assert KEY not in repr(settings) + str(settings.model_dump())

    def test_have_those_of_dotenv_and_the_environments_win(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"HOLDFAST_API_KEYS=alice:{KEY}\nHOLDFAST_API_KEY={OTHER}\n")
        settings = load(environ={}, folder=tmp_path)
        assert [key.owner for key in settings.api_keys] == ["alice"]
        assert settings.client_key is not None
        assert settings.client_key.get_secret_value() == OTHER
        settings = load(environ={"HOLDFAST_API_KEYS": f"bob:{KEY}"}, folder=tmp_path)
        assert [key.owner for key in settings.api_keys] == ["bob"]

    def test_keep_them_when_they_are_copied(self, tmp_path: Path) -> None:
        settings = load(environ={"HOLDFAST_API_KEYS": f"alice:{KEY}"}, folder=tmp_path)
        copy = settings.model_copy(update={"storage": StorageSettings(url="sqlite:///x.db")})
        assert copy.api_keys == settings.api_keys
        copy.note_keys(())
        assert settings.api_keys

    def test_without_any_have_none(self, tmp_path: Path) -> None:
        settings = load(environ={"HOLDFAST_API_KEYS": ""}, folder=tmp_path)
        assert (settings.api_keys, settings.client_key) == ((), None)
        assert Settings().api_keys == ()

    def test_name_dotenv_where_it_is_wrong_there(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"HOLDFAST_API_KEYS={KEY}\n")
        with pytest.raises(ConfigError, match=r"HOLDFAST_API_KEYS \(\.env\): entry 1 must be") as e:
            load(environ={}, folder=tmp_path)
        assert KEY not in e.value.message


class TestDatabaseUrl:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("sqlite:///holdfast.db", "sqlite:///holdfast.db"),
            ("sqlite:////data/a@b?.db", "sqlite:////data/a@b?.db"),
            ("postgresql://user:secret@db.example/chat", "postgresql://***@db.example/chat"),
            ("postgresql+x://user:se/cr@e?t@db.example/chat", "postgresql+x://***@db.example/chat"),
            (
                "postgresql://db.example/chat?user=u&password=secret&sslmode=require",
                "postgresql://db.example/chat?user=u&password=***&sslmode=require",
            ),
        ],
    )
    def test_is_shown_without_its_secrets(self, url: str, shown: str) -> None:
        assert StorageSettings(url=url).shown_url == shown
