"""The site as it is built: equations are rendered by files of its own, and nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a browser loads without being asked, by tag; links that a reader may follow are no loads.
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(
            importlib.util.find_spec(name) is None
            for name in ("mkdocs", "material", "mkdocstrings")
        ),
        reason="needs mkdocs-material and mkdocstrings (the extra docs)",
    ),
]


class Page(HTMLParser):
    """Prose, equations and loaded files of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.prose: list[str] = []
        self.equations: list[str] = []
        self.loads: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get(LOADS.get(tag, "")):
            self.loads.append(str(values[LOADS[tag]]))
        kind = self._open[-1][1] if self._open else "prose"
        if tag in ("code", "pre", "script", "style", "title"):
            kind = "code"
        elif "arithmatex" in str(values.get("class", "")).split():
            kind = "equation"
            self.equations.append("")
        if tag not in VOID:
            self._open.append((tag, kind))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        kind = self._open[-1][1] if self._open else "prose"
        if kind == "prose":
            self.prose.append(data)
        elif kind == "equation":
            self.equations[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, warnings being errors, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_no_equation_is_left_as_tex(pages: dict[Path, Page]) -> None:
    assert sum(len(page.equations) for page in pages.values()) > 100
    raw = re.compile(r"\\\(|\\\[|\$\$|\\[a-z]{2,}|(?<!\w)\$[^$\n]+\$")
    for path, page in pages.items():
        assert not [text for text in page.prose if raw.search(text)], path
        assert not [text for text in page.equations if "\\(" in text or "\\[" in text], path


def test_equations_are_rendered_by_files_of_the_site(pages: dict[Path, Page]) -> None:
    needed = {"katex.min.js", "katex.min.css", "equations.js"}
    for path, page in pages.items():
        if page.equations:
            loaded = {Path(load).name: path.parent / load for load in page.loads}
            assert needed <= set(loaded), path
            assert all(loaded[name].is_file() for name in needed), path


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs KaTeX")
def test_katex_understands_every_equation(site: Path, pages: dict[Path, Page]) -> None:
    script = (
        "const katex = require(process.argv[1]);"
        "for (const tex of JSON.parse(require('fs').readFileSync(0, 'utf8')))"
        "  katex.renderToString(tex, { throwOnError: true, strict: 'error' });"
    )
    ran = subprocess.run(
        ["node", "-e", script, str(site / "assets/katex/katex.min.js")],
        input=json.dumps([tex for page in pages.values() for tex in page.equations]),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    foreign = re.compile(r"^(https?:)?//")
    for path, page in pages.items():
        assert not [load for load in page.loads if foreign.match(load)], path
    for path in site.rglob("*.css"):
        for target in re.findall(r"url\(['\"]?([^)'\"]+)", path.read_text()):
            assert not foreign.match(target), path
            if not target.startswith(("data:", "#")):
                assert (path.parent / re.split("[?#]", target)[0]).is_file(), f"{path}: {target}"


def test_every_section_of_a_docstring_is_understood(site: Path) -> None:
    # A heading that mkdocstrings does not know ("Fields:") becomes a box of run-on text.
    for path in (site / "reference").glob("*.html"):
        assert re.findall(r'<details class="([a-z-]+)"', path.read_text()) == [], path.name
