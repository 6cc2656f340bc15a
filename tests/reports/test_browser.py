"""The pages in a real browser: they render, a click sorts, and nothing is fetched from anywhere."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import reports

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome in PATH: the pages are not looked at")

# Runs behind the page's own script; what it finds is left in the document for `--dump-dom`.
PROBE = """<script>
window.addEventListener("load", () => {
  const column = () => [...document.querySelectorAll("table.sortable tbody tr")].map(
    row => row.cells[NUMBER].textContent);
  const found = {before: column(), errors: window.faults};
  const button = document.querySelectorAll("table.sortable th button")[NUMBER];
  button.click(); found.once = column();
  button.click(); found.twice = column();
  found.figures = [...document.querySelectorAll("figure svg")].map(svg => {
    const box = svg.getBoundingClientRect(); return [box.width, box.height]; });
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  document.body.innerHTML = ""; document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
});
</script>"""
CATCH = "<script>window.faults = []; window.onerror = text => { window.faults.push(text); };</script>"


def look(page: Path, number: int, profile: Path) -> dict[str, Any]:
    """Open a copy of the page and return what the probe found; column ``number`` of the table is clicked twice."""
    text = page.read_text(encoding="utf-8")
    assert "</head>" in text and "</body>" in text
    text = text.replace("</head>", CATCH + "</head>").replace(
        "</body>", PROBE.replace("NUMBER", str(number)) + "</body>"
    )
    copy = page.with_name("probed.html")
    copy.write_text(text, encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        f"--user-data-dir={profile}", "--window-size=1200,900", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=110).stdout
    match = re.search(r"FOUND(\{.*?\})END", dom.rpartition("<body")[2], re.DOTALL)
    assert match, dom[-500:]
    return dict(json.loads(html.unescape(match[1])))


def test_a_comparison_renders_sorts_and_fetches_nothing(study: Path, tmp_path: Path) -> None:
    reports.report([study], tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    head = re.search(r'<table class="sortable"><thead><tr>(.*?)</tr>', page.read_text(), re.DOTALL)
    assert head
    titles = re.findall(r"<button>(.*?)</button>", head[1])
    found = look(page, titles.index("seed"), tmp_path / "profile")
    assert found["errors"] == []
    assert sorted(found["before"]) == ["0", "1", "2"]
    assert found["once"] in (["0", "1", "2"], ["2", "1", "0"])
    assert found["twice"] == found["once"][::-1]
    assert len(found["figures"]) == 3
    assert all(width > 300 and height > 50 for width, height in found["figures"])
    assert found["overflow"] <= 0  # wide tables scroll by themselves, not the page
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
