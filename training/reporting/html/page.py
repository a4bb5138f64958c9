"""Pieces of a self-contained HTML page: text, tables, figures, the page around them.

Nothing is loaded from anywhere, nothing is run, and every text is escaped here: the functions take
plain text and return HTML, but for those arguments whose names end in `html`.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

__all__ = [
    "cards",
    "code",
    "details",
    "figure",
    "paragraph",
    "section",
    "table",
    "text",
    "whole_page",
]

_DPI = 160  # of figures 8 inches wide that are shown 900 px wide: sharp on fine screens too
_SHOWN_DPI = 112.5
_COLOURS = 160

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{head}</header>
<nav aria-label="Sections">
<ul>
{links}
</ul>
</nav>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """\
:root { --ink: #1c2126; --soft: #59636e; --paper: #f7f8f9; --card: #ffffff; --line: #d8dee4;
  --accent: #0b5a8c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #a3adb8; --paper: #14181c; --card: #1d2329; --line: #39424c;
    --accent: #79bdf0; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0.5rem 0; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 3rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--line);
  font-size: 1.35rem; line-height: 1.3; }
p { max-width: 44rem; margin: 0.6rem 0; }
a { color: var(--accent); }
code { font: 0.9em ui-monospace, Consolas, monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; margin: 1.2rem 0; padding: 0;
  list-style: none; font-size: 0.95rem; }
dl.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
  gap: 0.8rem; margin: 1.2rem 0; }
dl.cards > div { padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
dl.cards dt { color: var(--soft); font-size: 0.88rem; line-height: 1.35; }
dl.cards dd { margin: 0; }
dl.cards dd.value { margin-top: 0.2rem; font-size: 1.6rem; font-weight: 650; line-height: 1.25; }
dl.cards dd.note { color: var(--soft); font-size: 0.85rem; line-height: 1.35; }
figure { margin: 1.4rem 0; }
figure > div { overflow-x: auto; padding: 0.8rem; border: 1px solid var(--line);
  border-radius: 10px; background: #ffffff; }
img { display: block; width: 100%; min-width: 36rem; height: auto; margin: 0 auto; }
figcaption { max-width: 44rem; margin-top: 0.5rem; color: var(--soft); font-size: 0.93rem; }
.scroll { overflow-x: auto; margin: 1.2rem 0; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
table { width: 100%; border-collapse: collapse; font-size: 0.92rem; line-height: 1.4; }
caption { padding: 0.7rem 0.9rem 0.5rem; color: var(--soft); text-align: left;
  font-size: 0.93rem; }
caption span { display: block; max-width: calc(100vw - 4.5rem); }
th, td { padding: 0.4rem 0.9rem; border-top: 1px solid var(--line); text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
th:first-child, .words th, .words td { text-align: left; }
td { white-space: nowrap; }
.words td { white-space: normal; overflow-wrap: anywhere; }
td small { display: block; color: var(--soft); }
summary { cursor: pointer; color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { nav { display: none; } h2, figure, .scroll { break-inside: avoid; } }
"""


def text(value: str) -> str:
    """Plain text as HTML."""
    return html.escape(value, quote=True)


def paragraph(value: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{text(value)}</p>"


def code(value: str) -> str:
    """A command to be typed."""
    return f"<pre><code>{text(value)}</code></pre>"


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """Headline figures: what each is called, its value, and a note that may be empty."""
    items = []
    for name, value, note in entries:
        note_html = f'<dd class="note">{text(note)}</dd>' if note else ""
        items.append(
            f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd>{note_html}</div>'
        )
    return f'<dl class="cards">\n{chr(10).join(items)}\n</dl>'


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    words: bool = False,
) -> str:
    """A table whose first column names the rows.

    Args:
        caption: What the table shows.
        head: Names of all columns, the first included.
        rows: For each row its name and its cells. What follows a line break in a cell is set small
            below the rest.
        words: Whether the cells are words rather than numbers, to be set to the left.
    """
    columns = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = []
    for name, cells in rows:
        cells_html = "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{text(name)}</th>{cells_html}</tr>')
    kind = "scroll words" if words else "scroll"
    return (
        f'<div class="{kind}" role="region" tabindex="0" aria-label="{text(caption)}">\n'
        f"<table>\n<caption><span>{text(caption)}</span></caption>\n<thead><tr>{columns}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(lines)}\n</tbody>\n</table>\n</div>"
    )


def figure(drawn: Figure, *, alt: str, caption: str) -> str:
    """A figure as a PNG within the page, on white whatever the page's colours.

    Args:
        drawn: The figure.
        alt: What it shows, for who does not see it.
        caption: What to look for, for everybody.
    """
    data, width, height = _png(drawn)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure>\n<div><img src="{source}" width="{width}" height="{height}" '
        f'alt="{text(alt)}"></div>\n<figcaption>{text(caption)}</figcaption>\n</figure>'
    )


def details(summary: str, content_html: str) -> str:
    """What is shown only when it is asked for."""
    return f"<details>\n<summary>{text(summary)}</summary>\n{content_html}\n</details>"


def section(anchor: str, title: str, content_html: str) -> str:
    """A section with its heading, to which links lead."""
    return (
        f'<section id="{text(anchor)}" aria-labelledby="{text(anchor)}-title">\n'
        f'<h2 id="{text(anchor)}-title">{text(title)}</h2>\n{content_html}\n</section>'
    )


def whole_page(title: str, head_html: str, links: Mapping[str, str], body_html: str) -> str:
    """The whole page.

    Args:
        title: Its title.
        head_html: What stands below the title.
        links: Titles of the sections by their anchors.
        body_html: The sections.
    """
    items = (f'<li><a href="#{text(to)}">{text(name)}</a></li>' for to, name in links.items())
    return _PAGE.format(
        title=text(title), style=_STYLE, head=head_html, links="\n".join(items), body=body_html
    )


def _cell(value: str) -> str:
    first, _, rest = value.partition("\n")
    return text(first) + (f"<small>{text(rest)}</small>" if rest else "")


def _png(drawn: Figure) -> tuple[bytes, int, int]:
    """A PNG of few colours, and the size it is shown at in CSS pixels."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    small = io.BytesIO()
    few = image.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    scale = _SHOWN_DPI / _DPI
    return small.getvalue(), round(image.width * scale), round(image.height * scale)
