"""Renew the libraries that the page carries with it: src/holdfast/console/vendor.

    python scripts/vendor_console.py            fetch the versions of the table below
    python scripts/vendor_console.py --check    compare the files with those that were fetched

A version is changed in the table; the archive's SHA-256 that the run then asks for is to be
compared with what the library's publisher names. Where npm fetches from is its user's setting.
What was fetched is written to VERSIONS.json: name, version, licence, and the SHA-256 of every file
as it lies here.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parent.parent / "src" / "holdfast" / "console" / "vendor"
VERSIONS = VENDOR / "VERSIONS.json"


@dataclass(frozen=True)
class Library:
    """A package, and what is taken out of it: paths in it, with the names that the files get."""

    package: str
    version: str
    licence: str
    archive_sha256: str
    files: dict[str, str]

    @property
    def name(self) -> str:
        """The name in short, as in file names."""
        return "highlight" if self.package.startswith("@highlightjs/") else self.package


LIBRARIES = (
    Library(
        "preact",
        "11.2.0",
        "MIT",
        "3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"},
    ),
    Library(
        "htm",
        "3.1.1",
        "Apache-2.0",
        "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90",
        {"dist/htm.mjs": "htm.js"},
    ),
    Library(
        "marked",
        "18.2.1",
        "MIT",
        "d66c5213fc203466186060105b01f51896764ba64b3797d2620d02e28e34b8ca",
        {"lib/marked.esm.js": "marked.js"},
    ),
    Library(
        "dompurify",
        "3.4.18",
        "Apache-2.0 OR MPL-2.0",
        "8b86f79c6481fec23dd81d4de32179422668912ed033c0c47e786a6e70cb3379",
        {"dist/purify.es.mjs": "purify.js"},
    ),
    Library(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        "b8a006d30f45afe783072569f3d69c5b60c0e7b9ca28cd474e12f2584e2a3bd9",
        {"es/highlight.min.js": "highlight.js"},
    ),
)

# Browsers resolve no bare names, and an import map would have to be an inline script.
BARE_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*)(["'])preact\2""")
SOURCE_MAP = re.compile(r"\n//# sourceMappingURL=\S+\s*$")


def sha256(data: bytes) -> str:
    """The digest as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def fetch(library: Library, folder: Path) -> Path:
    """The package's archive, which must be the one that the table names."""
    told = subprocess.run(
        ["npm", "pack", "--silent", f"{library.package}@{library.version}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    archive = folder / told.stdout.split()[-1]
    found = sha256(archive.read_bytes())
    if found != library.archive_sha256:
        sys.exit(f"{library.package} {library.version}: the archive's SHA-256 is {found}")
    return archive


def unpack(library: Library, archive: Path) -> dict[str, bytes]:
    """The files of a library by the names that they get, its licence among them."""
    with tarfile.open(archive) as packed:

        def read(path: str) -> bytes:
            member = packed.extractfile(f"package/{path}")
            assert member is not None
            return member.read()

        files = {name: adapted(read(path)) for path, name in library.files.items()}
        files[f"{library.name}.LICENSE"] = read("LICENSE")
    return files


def adapted(source: bytes) -> bytes:
    """A module as a browser takes it without a build step."""
    text = BARE_IMPORT.sub(r"\1\2./preact.js\2", source.decode())
    return (SOURCE_MAP.sub("", text).rstrip() + "\n").encode()


def renew() -> None:
    """Fetch every library of the table and put it in place of what is there."""
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for library in LIBRARIES:
            taken = unpack(library, fetch(library, Path(folder)))
            files |= taken
            entries.append(
                {
                    "name": library.package,
                    "version": library.version,
                    "licence": library.licence,
                    "files": {name: sha256(data) for name, data in taken.items()},
                }
            )
    VENDOR.mkdir(parents=True, exist_ok=True)
    for old in VENDOR.iterdir():
        old.unlink()
    for name, data in files.items():
        (VENDOR / name).write_bytes(data)
    VERSIONS.write_text(json.dumps(entries, indent=2) + "\n")


def check() -> list[str]:
    """What is wrong with the files as they lie here: none may differ, be missing or be too many."""
    entries = json.loads(VERSIONS.read_text())
    recorded = {name: digest for entry in entries for name, digest in entry["files"].items()}
    found = {path.name: sha256(path.read_bytes()) for path in VENDOR.iterdir() if path != VERSIONS}
    wrong = [
        f"{name} is not the file that was fetched"
        for name in sorted(recorded.keys() | found.keys())
        if recorded.get(name) != found.get(name)
    ]
    table = [(library.package, library.version, library.licence) for library in LIBRARIES]
    if table != [(entry["name"], entry["version"], entry["licence"]) for entry in entries]:
        wrong.append("VERSIONS.json is not what the table says")
    return wrong


def main() -> None:
    """Renew, or check."""
    parser = argparse.ArgumentParser(description="Renew the libraries that the page carries.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    if not parser.parse_args().check:
        renew()
    wrong = check()
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
