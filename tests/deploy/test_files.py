"""The files of `deploy/` fit each other, Holdfast's defaults, and the programs that read them."""

import configparser
import inspect
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from dotenv import dotenv_values

from holdfast.http import server
from holdfast.settings import Settings, load
from tests.deploy.site import DEPLOY

UNIT: Final = DEPLOY / "systemd" / "holdfast@.service"
COMPOSE: Final = DEPLOY / "compose" / "compose.yaml"
SETTINGS: Final = DEPLOY / "holdfast.toml"
SECRETS: Final = {"POSTGRES_PASSWORD": "secret", "HOLDFAST_API_KEYS": f"alice:{'k' * 16}",
                  "OPENAI_API_KEY": "sk"}  # fmt: skip


def settings_in(environment: dict[str, str], folder: Path) -> Settings:
    """The example's settings, as a process with this environment has them."""
    return load(SETTINGS, environ=environment, folder=folder)


def stop_time_s(settings: Settings) -> float:
    """How long a node may take to go."""
    return settings.server.shutdown_grace_s + settings.stream.send_timeout_s


class TestUnit:
    @pytest.fixture
    def service(self) -> dict[str, str]:
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(UNIT)
        return dict(parser["Service"])

    def test_systemd_takes_it(self, service: dict[str, str], tmp_path: Path) -> None:
        program = shutil.which("systemd-analyze")
        if program is None:
            assert service["Type"] == "exec"
            return
        unit = tmp_path / "holdfast@8484.service"
        text = UNIT.read_text()
        unit.write_text(text.replace("/opt/holdfast/bin/holdfast", shutil.which("true") or ""))
        done = subprocess.run(
            [program, "verify", unit], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_waits_until_the_node_has_drained(
        self, service: dict[str, str], tmp_path: Path
    ) -> None:
        environment = dict(_env_file(DEPLOY / "systemd" / "holdfast.env"))
        limit_s = float(service["TimeoutStopSec"].removesuffix("s"))
        assert limit_s > stop_time_s(settings_in(environment, tmp_path))
        assert service["KillSignal"] == "SIGTERM"
        assert service["Restart"] == "always"

    def test_its_environment_file_is_what_holdfast_takes(self, tmp_path: Path) -> None:
        settings = settings_in(_env_file(DEPLOY / "systemd" / "holdfast.env"), tmp_path)
        assert settings.storage.url.startswith("postgresql://")
        assert [key.owner for key in settings.api_keys] == ["alice", "ops"]
        assert settings.upstreams["model"]["api_key"] == "change-this"


class TestCompose:
    @pytest.fixture
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
        return found

    def test_two_nodes_a_database_and_nginx(self, services: dict[str, Any]) -> None:
        assert set(services) == {"postgres", "node-a", "node-b", "nginx"}
        assert services["postgres"]["image"] == "postgres:15"

    @pytest.mark.parametrize("name", ["node-a", "node-b"])
    def test_its_nodes_have_settings_that_holdfast_takes(
        self, services: dict[str, Any], name: str, tmp_path: Path
    ) -> None:
        node = services[name]
        environment = {key: _filled(str(value)) for key, value in node["environment"].items()}
        settings = settings_in(environment, tmp_path)
        assert settings.storage.url == "postgresql://holdfast:secret@postgres:5432/holdfast"
        assert [key.owner for key in settings.api_keys] == ["alice"]
        assert settings.server.host == "0.0.0.0"
        assert float(node["stop_grace_period"].removesuffix("s")) > stop_time_s(settings)
        assert "/readyz" in node["healthcheck"]["test"][-1]
        assert f":{settings.server.port}/" in node["healthcheck"]["test"][-1]

    def test_what_is_not_set_is_asked_for(self) -> None:
        text = COMPOSE.read_text()
        names = set(re.findall(r"\$\{(\w+)", text))
        assert names == set(SECRETS)
        assert len(re.findall(r"\$\{\w+:\?", text)) == len(re.findall(r"\$\{", text))
        assert set(dotenv_values(DEPLOY / "compose" / "env.example")) == names

    def test_files_that_are_mounted_or_built_from_are_there(self, services: dict[str, Any]) -> None:
        for service in services.values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert not source.startswith(".") or (COMPOSE.parent / source).is_file(), source
            if "build" in service:
                context = COMPOSE.parent / service["build"]["context"]
                assert (context / service["build"]["dockerfile"]).is_file()

    def test_nginx_knows_the_nodes_by_addresses_that_stay(self, services: dict[str, Any]) -> None:
        nodes = [services[name]["networks"]["inside"]["ipv4_address"] for name in
                 ("node-a", "node-b")]  # fmt: skip
        own = (DEPLOY / "compose" / "upstream.conf").read_text()
        assert re.findall(r"server ([\d.]+):8484 ", own) == nodes

    def test_images_are_named_without_an_address(self, services: dict[str, Any]) -> None:
        images = [service["image"] for service in services.values()]
        images += re.findall(r"^FROM (\S+)", (COMPOSE.parent / "Dockerfile").read_text(), re.M)
        assert all(re.fullmatch(r"[a-z]+:[\w.-]+", image) for image in images), images


class TestNginx:
    @pytest.fixture
    def text(self) -> str:
        return (DEPLOY / "nginx" / "holdfast.conf").read_text()

    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(**{**tomllib.loads(SETTINGS.read_text()), "upstreams": {}})

    def test_no_time_out_is_shorter_than_a_silence_that_is_meant(
        self, text: str, settings: Settings
    ) -> None:
        streams, others = (int(found) for found in re.findall(r"proxy_read_timeout (\d+)s;", text))
        assert streams > 2 * settings.stream.heartbeat_s
        assert others > settings.runs.total_timeout_s

    def test_connections_are_given_up_before_a_node_closes_them(self) -> None:
        (closed,) = re.findall(r"timeout_keep_alive=(\d+)", inspect.getsource(server))
        for folder in ("nginx", "compose"):
            upstream = (DEPLOY / folder / "upstream.conf").read_text()
            (kept,) = re.findall(r"keepalive_timeout (\d+)s;", upstream)
            assert int(kept) < int(closed)

    def test_both_examples_treat_their_nodes_alike(self) -> None:
        one, other = (
            re.sub(r"#.*|\s+|[\d.]+:848\d", "", (DEPLOY / folder / "upstream.conf").read_text())
            for folder in ("nginx", "compose")
        )
        assert one == other

    def test_nothing_is_asked_twice(self, text: str) -> None:
        settings = re.sub(r"#.*", "", text)
        assert "non_idempotent" not in settings
        assert re.findall(r"proxy_next_upstream (.*);", settings) == ["error timeout http_503"]

    def test_its_names_are_served(self, text: str, settings: Settings) -> None:
        (names,) = re.findall(r"server_name (.*);", text)
        assert set(names.split()) == set(settings.server.allowed_hosts)


def _env_file(path: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(path).items()}


def _filled(value: str) -> str:
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SECRETS[found[1]], value)
