"""Pieces of a page: tables, figures, links. Every text in them is escaped."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from reports.canvas import CARD, GRID, INK, PALETTE, PAPER, PNG_DPI

# Colours of a figure that the page sets itself, because they must suit a light and a dark background.
_VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)", PALETTE[0]: "var(--blue)"}
_INTERNAL_ID = re.compile(r' id="[A-Za-z.]\w*_\d{1,4}"')  # names of matplotlib's groups, the same in every figure
_FONT = re.compile(r"font-family: [^;\"]*")
_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


class Cell(NamedTuple):
    """Text, the value to sort by if it is not the text itself, and a page that it links to."""

    text: str
    value: float | str | None = None
    link: str | None = None


def link_to(file: Path, page: Path) -> str | None:
    """The address of ``file`` on ``page``, relative, so that both can be moved together; None where it is not there."""
    return quote(os.path.relpath(file.resolve(), page.resolve().parent)) if file.is_file() else None


def table(
    header: Sequence[str], rows: Iterable[Iterable[Cell]], kind: str = "", series: Sequence[int] | None = None
) -> str:
    """A table; ``kind`` is its class: ``sortable`` has buttons to sort by; ``series`` are what rows belong to."""
    frame = "<th><button>{}</button></th>" if kind == "sortable" else "<th>{}</th>"
    head = "".join(frame.format(escape(text)) for text in header)
    body = ""
    for index, row in enumerate(rows):
        mark = "" if series is None else f' data-series="{series[index]}"'
        body += f"<tr{mark}>{''.join(map(_cell, row))}</tr>\n"
    inner = f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll">{inner}</div>\n'


def texts(rows: Sequence[Sequence[str | Cell]], kind: str = "") -> str:
    """A table whose first row is its heading."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return table([cell.text for cell in cells[0]], cells[1:], kind)


def _cell(cell: Cell) -> str:
    sort = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    look = ' class="long"' if len(cell.text) > 40 else ""
    text = escape(cell.text) if cell.link is None else f'<a href="{escape(cell.link)}">{escape(cell.text)}</a>'
    return f"<td{sort}{look}>{text}</td>"


def cards(figures: Iterable[str]) -> str:
    """Figures beside each other, as many as there is room for."""
    return f'<div class="cards">{"".join(figures)}</div>\n'


def figure(svg: str, caption: str) -> str:
    """A figure with its caption; one wider than a card keeps its size and scrolls where there is no room."""
    match = _SIZE.search(svg)
    width = float(match[1]) / 72 if match else 0.0
    kind = ' class="wide"' if width > 1.01 * CARD[0] else ""
    size = f' style="--width: {96 * width:.0f}px"' if kind else ""
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure{kind}{size}><div class="scroll">{inline_svg(svg)}</div>{text}</figure>\n'


def inline_svg(svg: str) -> str:
    """An SVG file as an element of a page, in the page's colours and font."""
    return in_page_colours(_FONT.sub("font-family: inherit", _INTERNAL_ID.sub("", svg[svg.index("<svg") :])))


def in_page_colours(text: str) -> str:
    """Markup with the colours that must suit a light and a dark background as the page sets them."""
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def picture(path: Path, caption: str, *, natural_size: bool = False) -> str:
    """A PNG file inside the page; with ``natural_size`` as large as it was drawn, so that its text is as large."""
    from PIL import Image

    content = path.read_bytes()
    size = ""
    if natural_size:
        with Image.open(path) as image:
            size = f' width="{96 * image.width // PNG_DPI}"'
    kind = ' class="wide"' if size else ""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return (
        f'<figure{kind}><div class="scroll"><img src="{source}" alt=""{size}></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def command(text: str) -> str:
    """A command to copy, which breaks between words only."""
    return f"<pre>{' '.join(f'<span>{escape(word)}</span>' for word in text.split(' '))}</pre>\n"


def bullets(lines: Sequence[str]) -> str:
    """A list; nothing where it is empty."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>\n" if items else ""
