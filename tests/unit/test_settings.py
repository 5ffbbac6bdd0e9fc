"""Settings: what each source gives, which one wins, and what is said when something is wrong."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.errors import ConfigError
from holdfast.settings import (
    Names,
    PresetSettings,
    RouterSettings,
    Settings,
    Table,
    Unset,
    check_table,
    load,
)
from holdfast.settings.well_known import ollama_url


def write(folder: Path, text: str, name: str = "holdfast.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load_from(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    if toml:
        write(folder, toml)
    return load(environ=environ or {}, folder=folder)


def problem(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> str:
    """The message of the ConfigError, with the folder's name left out."""
    with pytest.raises(ConfigError) as caught:
        load_from(folder, toml, environ)
    return caught.value.message.replace(f"{folder}{os.sep}", "")


class TestSources:
    def test_without_any_source_the_defaults_hold(self, tmp_path: Path) -> None:
        assert load_from(tmp_path) == Settings()

    def test_the_file_of_the_working_folder_is_read(self, tmp_path: Path) -> None:
        settings = load_from(tmp_path, "[server]\nport = 9000")
        assert settings.server.port == 9000
        assert settings.server.host == "127.0.0.1"

    def test_a_named_file_is_read_instead(self, tmp_path: Path) -> None:
        write(tmp_path, "[server]\nport = 9000")
        other = write(tmp_path, "[runs]\non_busy = 'cancel'", "other.toml")
        settings = load(other, environ={}, folder=tmp_path)
        assert (settings.server.port, settings.runs.on_busy) == (8484, "cancel")

    def test_a_file_with_a_byte_order_mark_is_read(self, tmp_path: Path) -> None:
        assert load_from(tmp_path, "\ufeff[server]\nport = 9000").server.port == 9000

    def test_a_variable_beats_the_file_and_leaves_its_neighbours(self, tmp_path: Path) -> None:
        toml = "[server]\nport = 9000\nhost = '::1'"
        settings = load_from(tmp_path, toml, {"HOLDFAST_SERVER__PORT": "9001"})
        assert (settings.server.port, settings.server.host) == (9001, "::1")

    def test_dotenv_beats_the_file_and_the_environment_beats_dotenv(self, tmp_path: Path) -> None:
        write(tmp_path, "HOLDFAST_SERVER__PORT=9001\nHOLDFAST_SERVER__HOST=::1\n", ".env")
        environ = {"HOLDFAST_SERVER__PORT": "9002"}
        settings = load_from(tmp_path, "[server]\nport = 9000\nhost = 'other'", environ)
        assert (settings.server.port, settings.server.host) == (9002, "::1")

    def test_a_folder_called_dotenv_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()
        assert load_from(tmp_path) == Settings()

    def test_dotenv_variables_of_other_programs_do_not_matter(self, tmp_path: Path) -> None:
        write(tmp_path, "DJANGO_SECRET=x\nPORT=1\n", ".env")
        assert load_from(tmp_path) == Settings()

    def test_an_empty_variable_counts_as_not_set(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_SERVER__PORT": "", "OPENAI_API_KEY": ""}
        assert load_from(tmp_path, "", environ) == Settings()

    def test_the_environment_of_this_process_is_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOLDFAST_SERVER__PORT", "9003")
        monkeypatch.chdir(tmp_path)
        assert load().server.port == 9003

    def test_the_constructor_does_not_read_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOLDFAST_SERVER__PORT", "9003")
        assert Settings().server.port == 8484

    def test_settings_cannot_be_changed(self) -> None:
        settings = Settings()
        with pytest.raises(ValidationError):
            settings.server.port = 1


class TestDatabaseUrl:
    def test_it_is_a_second_name_for_the_storage_url(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_DATABASE_URL": "sqlite:///other.db"}
        assert load_from(tmp_path, "[storage]\nurl = 'x'", environ).storage.url == (
            "sqlite:///other.db"
        )

    def test_the_full_name_wins_within_one_source(self, tmp_path: Path) -> None:
        environ = {
            "HOLDFAST_DATABASE_URL": "sqlite:///a.db",
            "HOLDFAST_STORAGE__URL": "sqlite:///b.db",
        }
        assert load_from(tmp_path, "", environ).storage.url == "sqlite:///b.db"

    def test_in_the_environment_it_beats_the_full_name_in_dotenv(self, tmp_path: Path) -> None:
        write(tmp_path, "HOLDFAST_STORAGE__URL=sqlite:///b.db", ".env")
        environ = {"HOLDFAST_DATABASE_URL": "sqlite:///a.db"}
        assert load_from(tmp_path, "", environ).storage.url == "sqlite:///a.db"


class TestLists:
    @pytest.mark.parametrize("value", ["a, b", '["a", "b"]', "a,b,"])
    def test_a_variable_holds_json_or_commas(self, tmp_path: Path, value: str) -> None:
        settings = load_from(tmp_path, "", {"HOLDFAST_SERVER__ALLOWED_HOSTS": value})
        assert settings.server.allowed_hosts == ("a", "b")

    def test_broken_json_is_told(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "", {"HOLDFAST_SERVER__ALLOWED_HOSTS": '["a"'}) == (
            "HOLDFAST_SERVER__ALLOWED_HOSTS (environment): server.allowed_hosts "
            'is "[\\"a\\"", but must be a JSON list or texts separated by commas'
        )

    def test_an_upstream_table_can_use_them_too(self) -> None:
        class Kind(Table):
            models: Names = ()

        assert check_table(Kind, {"models": "a,b"}, "upstreams.x") == Kind(models=("a", "b"))


class TestUpstreams:
    def test_tables_are_kept_as_they_are(self, tmp_path: Path) -> None:
        toml = "[upstreams.gpt]\nkind = 'openai'\nheaders = { a = '1' }"
        assert load_from(tmp_path, toml).upstreams == {
            "gpt": {"kind": "openai", "headers": {"a": "1"}}
        }

    def test_a_variable_sets_one_key_of_a_table(self, tmp_path: Path) -> None:
        toml = "[upstreams.gpt]\nkind = 'openai'\nmodel = 'a'"
        settings = load_from(tmp_path, toml, {"HOLDFAST_UPSTREAMS__GPT__MODEL": "b"})
        assert settings.upstreams == {"gpt": {"kind": "openai", "model": "b"}}

    def test_a_variable_finds_a_name_with_capitals_and_hyphens(self, tmp_path: Path) -> None:
        toml = "[upstreams.My-KB]\nkind = 'ragflow'"
        settings = load_from(tmp_path, toml, {"HOLDFAST_UPSTREAMS__MY_KB__API_KEY": "k"})
        assert settings.upstreams == {"My-KB": {"kind": "ragflow", "api_key": "k"}}

    def test_variables_alone_make_an_upstream(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_UPSTREAMS__KB__KIND": "library", "HOLDFAST_UPSTREAMS__KB__PATH": "d"}
        assert load_from(tmp_path, "", environ).upstreams == {
            "kb": {"kind": "library", "path": "d"}
        }

    def test_a_table_that_is_none_is_told(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[upstreams]\ngpt = 'openai'") == (
            "holdfast.toml: upstreams.gpt must be a table"
        )

    @pytest.mark.parametrize("name", ["", "auto", "local_small", "cloud_large"])
    def test_a_name_that_means_something_else_is_told(self, name: str, tmp_path: Path) -> None:
        assert problem(tmp_path, f"[upstreams.'{name}']\nkind = 'library'") == (
            f"holdfast.toml: upstreams cannot have the name '{name}': choose another"
        )

    def test_upstreams_that_are_no_table_are_told(self, tmp_path: Path) -> None:
        message = "holdfast.toml: upstreams is 5, but must be a table"
        assert problem(tmp_path, "upstreams = 5") == message


class TestSubstitution:
    def test_variables_stand_in_for_values(self, tmp_path: Path) -> None:
        write(tmp_path, "HOST=h\nNAME=from-dotenv\n", ".env")
        toml = "[storage]\nurl = 'postgresql://${HOST}/${NAME}'"
        settings = load_from(tmp_path, toml, {"NAME": "from-environment"})
        assert settings.storage.url == "postgresql://h/from-environment"

    def test_values_of_variables_are_taken_as_they_are(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_STORAGE__URL": "sqlite:///${HOME}.db"}
        assert load_from(tmp_path, "", environ).storage.url == "sqlite:///${HOME}.db"

    def test_lists_and_inner_tables_are_searched(self, tmp_path: Path) -> None:
        toml = "[upstreams.x]\nkind = 'k'\nlist = ['${A}']\ninner = { key = '${A}' }"
        assert load_from(tmp_path, toml, {"A": "1"}).upstreams["x"] == {
            "kind": "k",
            "list": ["1"],
            "inner": {"key": "1"},
        }

    def test_a_missing_variable_names_key_and_variable(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[storage]\nurl = 'postgresql://${DB_HOST}/x'") == (
            "holdfast.toml: storage.url needs the variable DB_HOST, "
            "which is not set (environment or .env)"
        )

    def test_an_upstream_misses_its_variable_only_when_it_is_used(self, tmp_path: Path) -> None:
        class Kind(Table):
            api_key: str

        settings = load_from(tmp_path, "[upstreams.gpt]\napi_key = '${SECRET}'")
        assert settings.upstreams == {"gpt": {"api_key": Unset("SECRET")}}
        with pytest.raises(ConfigError) as caught:
            check_table(Kind, settings.upstreams["gpt"], "upstreams.gpt")
        assert caught.value.message == (
            "upstreams.gpt.api_key needs the variable SECRET, "
            "which is not set (environment or .env)"
        )

    def test_a_variable_of_ours_can_stand_in_for_a_missing_one(self, tmp_path: Path) -> None:
        environ = {"HOLDFAST_UPSTREAMS__GPT__API_KEY": "k"}
        settings = load_from(tmp_path, "[upstreams.gpt]\napi_key = '${SECRET}'", environ)
        assert settings.upstreams == {"gpt": {"api_key": "k"}}


class TestWellKnownVariables:
    def test_openai_needs_no_base_url(self, tmp_path: Path) -> None:
        environ = {"OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}
        assert load_from(tmp_path, "", environ).upstreams == {
            "openai": {
                "kind": "openai",
                "base_url": "https://api.openai.com/v1",
                "api_key": "k",
                "model": "m",
            }
        }

    def test_another_openai_server_needs_no_key(self, tmp_path: Path) -> None:
        environ = {"OPENAI_BASE_URL": "http://h/v1", "OPENAI_MODEL": "m"}
        assert load_from(tmp_path, "", environ).upstreams == {
            "openai": {"kind": "openai", "base_url": "http://h/v1", "model": "m"}
        }

    def test_they_may_stand_in_dotenv(self, tmp_path: Path) -> None:
        write(tmp_path, "OPENAI_API_KEY=k\nOPENAI_MODEL=m", ".env")
        assert load_from(tmp_path).upstreams.keys() == {"openai"}

    def test_a_key_alone_asks_for_the_model(self, tmp_path: Path) -> None:
        table = load_from(tmp_path, "", {"OPENAI_API_KEY": "k"}).upstreams["openai"]
        with pytest.raises(ConfigError, match=r"openai\.model needs the variable OPENAI_MODEL"):
            check_table(Table, table, "upstreams.openai")

    def test_a_key_alone_does_no_harm_beside_other_upstreams(self, tmp_path: Path) -> None:
        toml = "[upstreams.docs]\nkind = 'library'"
        settings = load_from(tmp_path, toml, {"OPENAI_API_KEY": "k"})
        assert settings.upstreams.keys() == {"docs"}

    def test_what_an_upstream_lacks_is_known_beside_other_upstreams(self, tmp_path: Path) -> None:
        toml = "[upstreams.docs]\nkind = 'library'"
        environ = {"OPENAI_API_KEY": "k", "ANYTHINGLLM_API_KEY": "k"}
        settings = load_from(tmp_path, toml, environ)
        assert settings.unset_variables == {
            "openai": ("OPENAI_MODEL",),
            "anythingllm": ("ANYTHINGLLM_BASE_URL", "ANYTHINGLLM_WORKSPACE_SLUG"),
        }
        assert settings.model_copy(update={}).unset_variables == settings.unset_variables

    @pytest.mark.parametrize(
        ("toml", "environ"),
        [
            ("", {}),
            ("", {"OPENAI_MODEL": "m"}),
            ("[upstreams.gpt]\nkind = 'openai'", {"OPENAI_API_KEY": "k"}),
            ("", {"OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}),
        ],
    )
    def test_nothing_is_lacking_of_what_nobody_describes_or_is_complete(
        self, tmp_path: Path, toml: str, environ: dict[str, str]
    ) -> None:
        assert load_from(tmp_path, toml, environ).unset_variables == {}

    def test_a_model_alone_points_at_nothing(self, tmp_path: Path) -> None:
        environ = {"OPENAI_MODEL": "m", "OLLAMA_MODEL": "m"}
        assert load_from(tmp_path, "", environ).upstreams == {}

    def test_ollama_stands_beside_openai(self, tmp_path: Path) -> None:
        environ = {
            "OPENAI_API_KEY": "k",
            "OPENAI_MODEL": "m",
            "OLLAMA_HOST": "box",
            "OLLAMA_MODEL": "n",
        }
        upstreams = load_from(tmp_path, "", environ).upstreams
        assert upstreams.keys() == {"openai", "ollama"}
        assert upstreams["ollama"] == {
            "kind": "openai",
            "base_url": "http://box:11434/v1",
            "model": "n",
        }

    @pytest.mark.parametrize(
        ("variable", "key"), [("RAGFLOW_CHAT_ID", "chat_id"), ("RAGFLOW_AGENT_ID", "agent_id")]
    )
    def test_ragflow_is_asked_for_a_chat_or_an_agent(
        self, tmp_path: Path, variable: str, key: str
    ) -> None:
        environ = {"RAGFLOW_BASE_URL": "http://h", "RAGFLOW_API_KEY": "k", variable: "7"}
        table = load_from(tmp_path, "", environ).upstreams["ragflow"]
        assert table == {"kind": "ragflow", "base_url": "http://h", "api_key": "k", key: "7"}

    def test_ragflow_asks_the_chat_if_both_are_there(self, tmp_path: Path) -> None:
        ids = {"RAGFLOW_CHAT_ID": "c", "RAGFLOW_AGENT_ID": "a"}
        environ = {"RAGFLOW_BASE_URL": "http://h", "RAGFLOW_API_KEY": "k", **ids}
        table = load_from(tmp_path, "", environ).upstreams["ragflow"]
        assert table["chat_id"] == "c"
        assert "agent_id" not in table

    def test_ragflow_without_either_asks_for_the_chat(self, tmp_path: Path) -> None:
        environ = {"RAGFLOW_BASE_URL": "http://h", "RAGFLOW_API_KEY": "k"}
        table = load_from(tmp_path, "", environ).upstreams["ragflow"]
        with pytest.raises(ConfigError, match=r"chat_id needs the variable RAGFLOW_CHAT_ID"):
            check_table(Table, table, "upstreams.ragflow")

    def test_a_kind_that_is_configured_is_left_alone(self, tmp_path: Path) -> None:
        toml = "[upstreams.gpt]\nkind = 'openai'\nmodel = 'm'"
        environ = {"OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}
        assert load_from(tmp_path, toml, environ).upstreams.keys() == {"gpt"}

    def test_our_variables_can_add_to_them(self, tmp_path: Path) -> None:
        environ = {
            "OPENAI_API_KEY": "k",
            "OPENAI_MODEL": "m",
            "HOLDFAST_UPSTREAMS__OPENAI__TEMPERATURE": "0",
        }
        assert load_from(tmp_path, "", environ).upstreams["openai"]["temperature"] == "0"

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("localhost", "http://localhost:11434/v1"),
            ("localhost:99", "http://localhost:99/v1"),
            (":99", "http://127.0.0.1:99/v1"),
            ("0.0.0.0", "http://127.0.0.1:11434/v1"),
            ("http://box", "http://box/v1"),
            ("https://box:99/", "https://box:99/v1"),
            ("https://box/ollama/", "https://box/ollama/v1"),
            ("[::1]:99", "http://[::1]:99/v1"),
            ("::1", "http://[::1]:11434/v1"),
        ],
    )
    def test_every_way_to_write_the_ollama_host(self, host: str, url: str) -> None:
        assert ollama_url(host) == url


def test_the_upstream_of_a_dialect_is_set_like_anything_else(tmp_path: Path) -> None:
    assert load_from(tmp_path).dialects.stream_ask is None
    environ = {"HOLDFAST_DIALECTS__STREAM_ASK": "notes"}
    assert load_from(tmp_path, "", environ).dialects.stream_ask == "notes"
    toml = "[dialects]\nstream_asks = 'notes'"
    assert "did you mean dialects.stream_ask?" in problem(tmp_path, toml)


class TestUnknown:
    def test_a_key_names_its_neighbour(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[server]\nprot = 1") == (
            "holdfast.toml: unknown key server.prot; did you mean server.port?"
        )

    def test_a_section_names_its_neighbour(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[upstream.gpt]\nkind = 'openai'") == (
            "holdfast.toml: unknown key upstream; did you mean upstreams?"
        )

    def test_a_key_of_another_section_is_found_there(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[server]\nlease_s = 1") == (
            "holdfast.toml: unknown key server.lease_s; did you mean node.lease_s?"
        )

    def test_a_key_without_section_is_found_in_one(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "host = 'x'") == (
            "holdfast.toml: unknown key host; did you mean server.host?"
        )

    def test_a_key_like_no_other_is_just_unknown(self, tmp_path: Path) -> None:
        message = "holdfast.toml: unknown key server.zzzzzz"
        assert problem(tmp_path, "[server]\nzzzzzz = 1") == message

    def test_an_option_of_pydantic_settings_is_no_key(self, tmp_path: Path) -> None:
        message = "holdfast.toml: unknown key _env_file"
        assert problem(tmp_path, "_env_file = 'x'") == message

    def test_a_variable_names_its_neighbour(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "", {"HOLDFAST_SERVER_PORT": "1"}) == (
            "HOLDFAST_SERVER_PORT (environment): unknown variable; "
            "did you mean HOLDFAST_SERVER__PORT?"
        )

    def test_a_variable_of_a_known_section_names_the_neighbouring_key(self, tmp_path: Path) -> None:
        write(tmp_path, "HOLDFAST_SERVER__PROT=1", ".env")
        assert problem(tmp_path) == (
            "HOLDFAST_SERVER__PROT (.env): unknown key server.prot; did you mean server.port?"
        )

    def test_a_key_of_an_upstream_names_its_neighbour(self) -> None:
        class Kind(Table):
            base_url: str = ""

        with pytest.raises(ConfigError) as caught:
            check_table(Kind, {"bas_url": "x"}, "upstreams.gpt")
        assert caught.value.message == (
            "unknown key upstreams.gpt.bas_url; did you mean upstreams.gpt.base_url?"
        )

    @pytest.mark.parametrize("name", ["HOLDFAST_URL", "HOLDFAST_DATABASE_URL"])
    def test_variables_outside_the_sections_are_known(self, tmp_path: Path, name: str) -> None:
        load_from(tmp_path, "", {name: "sqlite:///x.db"})


class TestWrongValues:
    @pytest.mark.parametrize(
        ("toml", "message"),
        [
            ("[server]\nport = 'x'", 'server.port is "x", but must be a whole number'),
            ("[server]\nport = 1.5", "server.port is 1.5, but must be a whole number"),
            ("[server]\nport = 70000", "server.port is 70000, but must be at most 65535"),
            ("[server]\nport = [1]", "server.port must be a whole number"),
            ("[server]\nhost = 1", "server.host is 1, but must be text"),
            ("[server]\ncors_origins = 1", "server.cors_origins is 1, but must be a list"),
            ("[server]\nallowed_hosts = [1]", "server.allowed_hosts[0] is 1, but must be text"),
            ("server = 1", "server is 1, but must be a table"),
            ("[node]\nlease_s = 0", "node.lease_s is 0, but must be greater than 0"),
            ("[node]\nlease_s = 'x'", 'node.lease_s is "x", but must be a number'),
            ("[node]\nlease_s = inf", "node.lease_s is Infinity, but must be a finite number"),
            ("[node]\nlease_s = 3", "node needs a lease_s of at least twice its heartbeat_s"),
            (
                "[runs]\non_busy = 'wait'",
                "runs.on_busy is \"wait\", but must be 'reject' or 'cancel'",
            ),
        ],
    )
    def test_each_is_told_in_plain_words(self, tmp_path: Path, toml: str, message: str) -> None:
        assert problem(tmp_path, toml) == f"holdfast.toml: {message}"

    def test_every_wrong_value_gets_its_line(self, tmp_path: Path) -> None:
        toml = "[server]\nport = 'x'\n[limits]\nreferences = -1"
        environ = {"HOLDFAST_SERVER__HOSTS": "y"}
        assert problem(tmp_path, toml, environ).splitlines() == [
            'holdfast.toml: server.port is "x", but must be a whole number',
            "HOLDFAST_SERVER__HOSTS (environment): unknown key server.hosts; "
            "did you mean server.host?",
            "holdfast.toml: limits.references is -1, but must be greater than 0",
        ]

    def test_a_variable_is_named_as_the_place(self, tmp_path: Path) -> None:
        assert problem(tmp_path, "[server]\nport = 1", {"HOLDFAST_SERVER__PORT": "x"}) == (
            'HOLDFAST_SERVER__PORT (environment): server.port is "x", but must be a whole number'
        )

    def test_a_missing_key_of_an_upstream_is_named(self) -> None:
        class Kind(Table):
            base_url: str

        with pytest.raises(ConfigError) as caught:
            check_table(Kind, {}, "upstreams.gpt")
        assert caught.value.message == "upstreams.gpt.base_url is missing"

    def test_long_values_are_cut(self, tmp_path: Path) -> None:
        assert len(problem(tmp_path, f"[server]\nport = '{'x' * 1000}'")) < 200

    def test_a_section_that_is_no_json_is_told(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "", {"HOLDFAST_UPSTREAMS": "hidden"})
        assert "upstreams" in message
        assert "hidden" not in message


class TestSecrets:
    def test_a_key_is_not_shown(self) -> None:
        class Kind(Table):
            api_key: int

        with pytest.raises(ConfigError) as caught:
            check_table(Kind, {"api_key": "hidden"}, "upstreams.gpt")
        assert caught.value.message == "upstreams.gpt.api_key is ***, but must be a whole number"

    def test_a_password_in_a_url_is_not_shown(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "[server]\nport = 'postgresql://me:hidden@host/x'")
        assert "hidden" not in message
        assert "***@host" in message

    def test_a_table_is_not_shown(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "[[upstreams.gpt]]\napi_key = 'hidden'")
        assert message == "holdfast.toml: upstreams.gpt must be a table"

    def test_errors_do_not_carry_their_cause(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load_from(tmp_path, "[server]\nport = 'hidden'")
        assert caught.value.__suppress_context__


class TestRouter:
    def test_patterns_are_checked(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "[router]\nlocal_patterns = ['fine', '(']")
        assert message.startswith(
            "holdfast.toml: router.local_patterns has '(', which is no regular expression: "
        )

    @pytest.mark.parametrize(
        ("text", "patterns"),
        [
            ("a{1,2}, b", ("a{1,2}, b",)),
            ("[ab], c", ("[ab], c",)),
            ('["a,b", "c"]', ("a,b", "c")),
            ("12", ("12",)),
        ],
    )
    def test_a_variable_holds_a_list_or_one_pattern(
        self, tmp_path: Path, text: str, patterns: tuple[str, ...]
    ) -> None:
        settings = load_from(tmp_path, "", {"HOLDFAST_ROUTER__CLOUD_PATTERNS": text})
        assert settings.router.cloud_patterns == patterns

    def test_a_pattern_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        assert "must be text" in problem(tmp_path, "[router]\nlocal_patterns = [1]")

    def test_names_are_told_with_their_keys(self) -> None:
        router = RouterSettings(default="a", local="b", fallbacks=("c", "d"))
        assert [*router.names()] == [
            ("router.default", "a"),
            ("router.local", "b"),
            ("router.fallbacks[0]", "c"),
            ("router.fallbacks[1]", "d"),
        ]
        for route in ("auto", "local_small", "cloud_large"):
            assert [*RouterSettings(default=route).names()] == []


class TestPresets:
    def test_an_unknown_key_names_the_nearest_of_its_table(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "[presets.careful]\nsytem = 'x'")
        assert message == (
            "holdfast.toml: unknown key presets.careful.sytem; did you mean presets.careful.system?"
        )

    @pytest.mark.parametrize(
        ("toml", "message"),
        [
            ("temperature = 11", "presets.p.temperature is 11, but must be at most 10"),
            ("temperature = nan", "presets.p.temperature"),
            ("max_tokens = 0", "presets.p.max_tokens is ***, but must be greater than 0"),
            ("history_messages = -1", "presets.p.history_messages is -1, but must be at least 0"),
            ("model = 1", "presets.p.model is 1, but must be text"),
        ],
    )
    def test_values_that_cannot_be_are_refused(
        self, tmp_path: Path, toml: str, message: str
    ) -> None:
        assert message in problem(tmp_path, f"[presets.p]\n{toml}")

    @pytest.mark.parametrize("name", ["auto", "local_small", "cloud_large", '""'])
    def test_names_that_mean_something_else_are_refused(self, tmp_path: Path, name: str) -> None:
        assert "choose another" in problem(tmp_path, f"[presets.{name}]\nmodel = 'm'")

    def test_a_variable_finds_the_preset_however_it_is_spelled(self, tmp_path: Path) -> None:
        toml = "[presets.Very-careful]\nmodel = 'm'"
        environ = {"HOLDFAST_PRESETS__VERY_CAREFUL__SYSTEM": "Be brief."}
        presets = load_from(tmp_path, toml, environ).presets
        assert presets == {"Very-careful": PresetSettings(model="m", system="Be brief.")}


class TestFiles:
    def test_a_named_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "none.toml"
        with pytest.raises(ConfigError) as caught:
            load(path, environ={}, folder=tmp_path)
        assert caught.value.message == f"{path}: there is no such file"

    def test_a_file_that_is_not_toml(self, tmp_path: Path) -> None:
        message = problem(tmp_path, "[server\n")
        assert message.startswith("holdfast.toml: is not TOML: ")
        assert "line 1" in message

    @pytest.mark.parametrize("name", ["holdfast.toml", ".env"])
    def test_a_file_that_is_not_utf8(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"A=\xff")
        assert problem(tmp_path) == f"{name}: is not UTF-8 text"


def test_the_import_brings_neither_server_nor_database() -> None:
    code = "import sys, holdfast.settings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "holdfast.settings" in done.stdout.split()
    assert not {"fastapi", "sqlalchemy", "aiohttp", "typer", "rich"} & {*done.stdout.split()}
