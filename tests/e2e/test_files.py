"""The files of the page: theirs, whole, and as they were fetched."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from holdfast.http.app import CONSOLE
from tests.e2e.browser import Browser, Response, Tab, expect
from tests.support.server import Deployment

ROOT = Path(__file__).parents[2]
VENDOR = CONSOLE / "vendor"
OWN = [
    path
    for path in sorted(CONSOLE.rglob("*"))
    if path.suffix in {".js", ".css", ".html", ".svg"} and VENDOR not in path.parents
]
NAMESPACES = {"www.w3.org"}


def test_the_libraries_are_those_that_were_fetched() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "vendor_console.py"), "--check"]
    told = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_each_library_has_its_version_and_its_licence() -> None:
    for library in json.loads((VENDOR / "VERSIONS.json").read_text()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
        assert library["licence"]
        (licence,) = [name for name in library["files"] if name.endswith(".LICENSE")]
        assert (VENDOR / licence).stat().st_size > 500


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(CONSOLE).as_posix())
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[\w.-]+", written)}
    assert hosts - NAMESPACES - {"127.0.0.1"} == set()
    assert "</script>" not in written or 'src="' in written


async def test_a_browser_loads_them_from_the_server_only(
    browser: Browser, site: Deployment
) -> None:
    """With their types: a module of another type is not run."""
    loaded: dict[str, str] = {}

    def note(response: Response) -> None:
        loaded[response.url] = response.headers.get("content-type", "")

    async with Tab.open(browser, site) as tab:
        tab.page.on("response", note)
        await tab.page.reload()
        await expect(tab.find("#empty")).to_be_visible()
        await tab.page.wait_for_load_state("networkidle")
    assert {urlsplit(url).netloc for url in loaded} == {urlsplit(site.server.url).netloc}
    modules = {url: kind for url, kind in loaded.items() if url.endswith(".js")}
    assert len(modules) > 20
    assert set(modules.values()) == {"text/javascript; charset=utf-8"}


async def test_they_are_not_sent_again_when_nothing_changed(site: Deployment) -> None:
    for path in ("/", "/app/main.js", "/style/base.css", "/icon.svg"):
        first = await site.server.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = await site.server.get(path, **{"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


async def test_the_policy_allows_nothing_but_the_server_itself(site: Deployment) -> None:
    reply = await site.server.get("/")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    sources = {word for part in policy.split("; ") for word in part.split()[1:]}
    assert sources == {"'none'", "'self'"}


@pytest.mark.parametrize(
    "path",
    [
        *("/app/", "/app", "/vendor/VERSIONS.json", "/vendor/htm.LICENSE", "/__init__.py"),
        *(
            "/holdfast-client.d.ts",
            "/../http/app.py",
            "/%2e%2e/http/app.py",
            "/app/..%2f..%2fcli.js",
        ),
        *("/app.js/", "/nothing.js", "/.js", "/x.html"),
    ],
)
async def test_what_is_no_file_of_the_page_is_not_found(path: str, site: Deployment) -> None:
    assert (await site.server.get(path)).status == 404
