"""README and docs are executed: every python block of a page, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Pages whose blocks fit several models: together they take minutes.
LONG = (
    "hmc",
    "targets",
    "likelihoods",
    "hyperparameters",
    "matching",
    "weight-priors",
    "pfn",
    "pfn-classification",
    "process-classes",
    "surrogates",
    "sghmc",
    "scale-mixtures",
    "infinite-width",
    "predictions",
)
RUNNABLE = [
    pytest.param(
        page,
        id=str(page.relative_to(ROOT)),
        marks=[pytest.mark.slow] if page.stem in LONG else [],
    )
    for page in PAGES
    if BLOCK.search(page.read_text())
]


@pytest.mark.parametrize("page", RUNNABLE)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for number, block in enumerate(BLOCK.findall(page.read_text())):
        exec(compile(block, f"{page.name}[block {number}]", "exec"), namespace)


def test_links_of_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:)([^)#]+)")
    for page in PAGES:
        for target in link.findall(page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation
