"""The pages in a real browser: they render, clicks sort and hide, values show, and nothing is fetched from anywhere."""

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
PROBE = r"""<script>
window.addEventListener("load", () => {
  const column = () => [...document.querySelectorAll("table.sortable tbody tr")].map(
    row => row.cells[NUMBER].textContent);
  const found = {before: column(), errors: window.faults};
  const button = document.querySelectorAll("table.sortable th button")[NUMBER];
  button.click(); found.once = column();
  button.click(); found.twice = column();
  const svg = document.querySelector("svg[data-values]"), curve = JSON.parse(svg.dataset.values)[0].curves[0];
  const [x, y] = curve.points[1], frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
  const hover = () => {
    const place = {clientX: frame.left + x * scale, clientY: frame.top + y * scale};
    svg.dispatchEvent(new PointerEvent("pointermove", place));
    return document.querySelector(".tip").innerText.split(/\s*\n\s*/);
  };
  const parts = () => [...document.querySelectorAll("[data-series='0']:not(button)")];
  found.hovered = hover();
  const [toggle] = document.querySelectorAll(".toggles button[data-series='0']");
  found.shown = parts().every(part => getComputedStyle(part).display !== "none");
  toggle.click();
  found.hidden = parts().length && parts().every(part => getComputedStyle(part).display === "none");
  found.without = hover();
  toggle.click();
  found.again = hover();
  svg.dispatchEvent(new PointerEvent("pointerleave"));
  found.left = document.querySelector(".tip").hidden;
  found.type = [...new Set([...document.querySelectorAll("figure svg text")].map(text =>
    (parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width
      / text.ownerSVGElement.viewBox.baseVal.width).toFixed(1)))];
  found.figures = [...document.querySelectorAll("figure svg")].map(svg => {
    const box = svg.getBoundingClientRect(); return [box.width, box.height]; });
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  document.body.innerHTML = ""; document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
});
</script>"""
CATCH = "<script>window.faults = []; window.onerror = text => { window.faults.push(text); };</script>"


def look(page: Path, number: int, profile: Path, width: int) -> dict[str, Any]:
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
        f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=110).stdout
    match = re.search(r"FOUND(\{.*?\})END", dom.rpartition("<body")[2], re.DOTALL)
    assert match, dom[-500:]
    return dict(json.loads(html.unescape(match[1])))


@pytest.mark.parametrize("width", [1400, 500])
def test_a_comparison_renders_and_answers_and_fetches_nothing(study: Path, tmp_path: Path, width: int) -> None:
    reports.report([study], tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    head = re.search(r'<table class="sortable"><thead><tr>(.*?)</tr>', page.read_text(), re.DOTALL)
    assert head
    titles = re.findall(r"<button>(.*?)</button>", head[1])
    found = look(page, titles.index("seed"), tmp_path / "profile", width)
    assert found["errors"] == []
    assert sorted(found["before"]) == ["0", "1", "2"]
    assert found["once"] in (["0", "1", "2"], ["2", "1", "0"])
    assert found["twice"] == found["once"][::-1]
    assert len(found["figures"]) == 5
    assert all(width > 300 and height > 200 for width, height in found["figures"])
    assert found["type"] == ["12.0"]  # the type of every figure, in pixels
    assert found["hovered"] == ["epoch 2", "bp", "72.00 %", "dgl, 2 runs", "70.50 %"]
    assert found["shown"] and found["hidden"] and found["left"]
    assert found["without"] == ["epoch 2", "dgl, 2 runs", "70.50 %"] and found["again"] == found["hovered"]
    assert found["overflow"] <= 0  # wide tables scroll by themselves, not the page
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
