"""The page holds everything in one file and lets nothing from a run become markup."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import reports
from reports.confusion import write_confusion
from reports.page import write_page
from reports.runs import find_runs, load_run
from utils import UserError

pytestmark = pytest.mark.pictures

MakeRun = Callable[..., Path]
HOSTILE = "<script>alert('x')</script>&\"'><img src=http://evil.example/x>"
PLAIN_ADDRESS = r"[\w./%-]+"  # a colon would be a scheme
VOID = {"meta", "img", "br", "use", "path", "rect"}


class Page(HTMLParser):
    """Collects the tags with their attributes, the text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def page_of(folder: Path, tmp_path: Path, title: str = "title") -> tuple[str, Page]:
    write_page(find_runs([folder]), tmp_path / "page.html", title)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    return text, Page(text)


def links_of(page: Page) -> list[str]:
    return [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]


def assert_self_contained(text: str, page: Page) -> None:
    addresses = set(re.findall(r"https?://[^\"'\s<)]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not {name for name, _ in page.tags} & {"img", "link", "iframe", "object", "embed", "base"}
    fetched = [
        attributes.get(key) for tag, attributes in page.tags if tag != "a" for key in ("src", "href", "xlink:href")
    ]
    assert all(link is None or link.startswith("#") for link in fetched)
    assert all(re.fullmatch(PLAIN_ADDRESS, link) for link in links_of(page))
    assert not page.open


def test_the_page_of_several_runs_names_them_all(study: Path, tmp_path: Path) -> None:
    text, page = page_of(study, tmp_path, "A & B")
    assert_self_contained(text, page)
    assert page.count("svg") == 5 and page.count("script") == 1
    assert {"bp_a", "dgl_a", "dgl_b", "dgl, 2 runs", "A & B", "81.00 ±0.71"} <= set(page.words)
    assert [word for word in page.words if word in ("bp", "dgl, 2 runs")][:4] == ["bp", "dgl, 2 runs"] * 2  # best first
    assert "learning_rate" in text[text.index("Settings that all share") :]
    assert "<?xml" not in text and text.count("<!DOCTYPE") == 1


def test_the_page_of_one_run_has_its_figures_summary_and_settings(make_run: MakeRun, tmp_path: Path) -> None:
    text, page = page_of(make_run("one"), tmp_path)
    assert_self_contained(text, page)
    assert page.count("svg") == 6 and page.count("details") == 2
    assert {
        "dgl, BasicCNN, digits, done, epochs 4 of 4",
        "1,234,567",
        "60.00",
        "70.00",
        "80.00",
        "learning_rate",
    } <= set(page.words)


@pytest.mark.parametrize("num_runs", [1, 2])
def test_nothing_from_a_run_becomes_markup(make_run: MakeRun, tmp_path: Path, num_runs: int) -> None:
    for index in range(num_runs):
        name = HOSTILE.replace("/", "|") + str(index)
        folder = make_run(name, HOSTILE, label=name, note=HOSTILE * (index + 1), **{HOSTILE: HOSTILE})
        (folder / "summary.json").write_text(f"{{{HOSTILE}")
    _, page = page_of(folder.parent, tmp_path, HOSTILE)
    assert page.count("script") == 1 and page.count("img") == 0 and not page.open
    assert any(name in word for word in page.words) and HOSTILE in page.words


def test_problems_are_listed(study: Path, tmp_path: Path) -> None:
    (study / "dgl_b" / "summary.json").unlink()
    _, page = page_of(study, tmp_path)
    assert "dgl_b: summary.json is missing" in page.words
    _, page = page_of(study / "dgl_b", tmp_path)
    assert "summary.json is missing" in page.words


def test_numbers_sort_by_value_not_by_text(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study, tmp_path)
    values = [attributes["data-value"] for tag, attributes in page.tags if tag == "td" and "data-value" in attributes]
    assert "1234567.0" in values and "1610612736.0" in values


def test_every_toggle_has_its_curves_and_rows_and_every_curve_its_toggle(study: Path, tmp_path: Path) -> None:
    text, page = page_of(study, tmp_path)
    toggles = {
        attributes["data-series"] for tag, attributes in page.tags if tag == "button" and "data-series" in attributes
    }
    assert toggles == {"0", "1"}
    parts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert parts[0].count(' data-series="1"') == 2  # of the accuracy the mean of two runs, and the band of their range
    for part in parts:
        assert set(re.findall(r' data-series="(\d+)"', part)) == toggles
        read = json.loads(html.unescape(re.findall('data-values="([^"]*)"', part)[0]))
        assert {str(curve["series"]) for panel in read for curve in panel["curves"]} == toggles
    rows = [attributes["data-series"] for tag, attributes in page.tags if tag == "tr" and "data-series" in attributes]
    assert rows == ["0", "1", *("0", "1", "1")]  # groups, then runs


def test_every_run_with_a_page_is_linked_from_where_the_comparison_stands(study: Path, tmp_path: Path) -> None:
    assert links_of(page_of(study, tmp_path)[1]) == []
    for folder in study.iterdir():
        reports.refresh(folder)
    strange = study / "a b#?%:c"
    (study / "bp_a").rename(strange)
    reports.report([study], tmp_path / "far" / "away")
    page = Page((tmp_path / "far" / "away" / "report.html").read_text())
    assert all(re.fullmatch(PLAIN_ADDRESS, link) for link in links_of(page))
    found = [(tmp_path / "far" / "away" / unquote(link)).resolve() for link in links_of(page)]
    assert sorted(found) == sorted(folder / "report.html" for folder in study.iterdir())


def test_settings_that_only_one_rule_has_are_no_difference(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("bp", "bp", epochs_of_bp=7, momentum=0.9)
    root = make_run("dgl", "dgl", heads="cnn", momentum=0.5).parent
    text, _ = page_of(root, tmp_path)
    differ, shared, partly = (
        text.index(words) for words in ("Settings in which they differ", "that all share", "that only some have")
    )
    places = {name: text.index(f"<td>{name}</td>") for name in ("momentum", "learning_rate", "heads", "epochs_of_bp")}
    assert differ < places["momentum"] < shared < places["learning_rate"] < partly < places["heads"]
    assert places["epochs_of_bp"] > partly


def test_a_run_says_how_it_was_made(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("one")
    assert "How it was made" not in page_of(folder, tmp_path)[0]
    (folder / "command.txt").write_text("main.py --dgl <b>\n")
    (folder / "environment.json").write_text(
        json.dumps({"commit": "abc", "uncommitted_changes": True, "python": "3.11", "packages": {"torch": "2.0"}})
    )
    (folder / "summary.json").write_text(
        json.dumps(json.loads((folder / "summary.json").read_text()) | {"chosen_on": "test"})
    )
    _, page = page_of(folder, tmp_path)
    assert {
        "abc with uncommitted changes", "python 3.11, torch 2.0",
        "epoch 3, chosen on test", "80.00 %", "learning rate", "training throughput (images/s)",
    } <= set(page.words)  # fmt: skip
    assert "python main.py --dgl <b>" in "".join(page.words)


def test_a_large_picture_keeps_its_size(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("one")
    (folder / "plots").mkdir()
    write_confusion(folder, [[5, 1], [2, 6]], ["cat", "dog"])
    _, page = page_of(folder, tmp_path)
    [image] = [attributes for tag, attributes in page.tags if tag == "img"]
    assert 300 < int(str(image["width"])) < 500


def test_figures_take_the_colours_of_the_page(study: Path, tmp_path: Path) -> None:
    text, _ = page_of(study, tmp_path)
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "#24292f" not in svg and "#ffffff" not in svg and "var(--ink)" in svg


def test_identifiers_within_a_page_are_used_by_what_they_name(make_run: MakeRun, tmp_path: Path) -> None:
    text, page = page_of(make_run("one"), tmp_path)
    known = {attributes.get("id") for _, attributes in page.tags}
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', text)) <= known


def test_refresh_rebuilds_the_plots_and_the_page(make_run: MakeRun) -> None:
    folder = make_run("one")
    reports.refresh(folder)
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    before = ["config.yaml", "metrics.jsonl", "plots", "report.html", "summary.json"]
    assert written == sorted(
        [*before, *(f"plots/{name}.svg" for name in ("accuracy", "blocks", "last", "loss", "rate", "throughput"))]
    )
    first = (folder / "report.html").read_bytes()
    reports.refresh(folder)
    assert (folder / "report.html").read_bytes() == first


def test_refresh_shows_a_run_that_has_just_begun(make_run: MakeRun) -> None:
    folder = make_run("one")
    (folder / "metrics.jsonl").write_text('{"kind": "step", "st')
    (folder / "summary.json").write_text('{"status": "running", "method": "dgl"}')
    reports.refresh(folder)
    page = (folder / "report.html").read_text()
    assert "running, epochs 0 of 4" in page and "line 1 cannot be read" in page
    with pytest.raises(UserError, match="no such folder"):
        reports.refresh(folder / "missing")


def test_report_writes_its_files_and_returns_the_table(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    text = reports.report([study], out)
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.png",
        "comparison.svg",
        "curves.svg",
        "ranking.svg",
        "report.html",
        "runs.csv",
    ]
    assert "dgl, 2 runs" in text and all(str(path) in text for path in out.iterdir())
    assert load_run(study / "bp_a").problems == ()


def test_report_goes_to_the_current_directory_unless_told(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reports.report([study / "bp_a"], None)
    assert (tmp_path / "report" / "report.html").is_file()


def test_report_errors_are_one_line(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^\S+missing: no such folder$"):
        reports.report([study, tmp_path / "missing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"^\S+taken: cannot write the report \(File exists\)$"):
        reports.report([study], tmp_path / "taken")


def test_importing_the_room_is_cheap() -> None:
    code = "import sys, reports; sys.exit(bool({'matplotlib', 'numpy', 'torch'} & set(sys.modules)))"
    root = Path(reports.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
