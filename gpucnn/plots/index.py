"""A folder of pictures as one page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from gpucnn.plots.feature_maps import FRAME, GENERATOR, INK

MANY = 8  # pictures; more are shown smaller, each a link to itself


def write_index(
    folder: Path, title: str, facts: Sequence[tuple[str, str]], pictures: Sequence[tuple[str, str]]
) -> Path:
    """``index.html`` with these facts (name, value) and pictures (file, what it shows)."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    figures = "".join(
        f'<figure><a href="{escape(file)}"><img src="{escape(file)}" alt="{escape(text)}"></a>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for file, text in pictures
    )
    page = PAGE.replace("TITLE", escape(title)).replace("FACTS", rows).replace("FIGURES", figures)
    page = page.replace("<main>", '<main class="many">' if len(pictures) > MANY else "<main>")
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title><style>
body {{ margin: 0 auto; max-width: 82rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; }}
body {{ color: {INK}; background: #fbfaf6; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 0 0 1.5rem; }}
dt {{ color: #565e68; }} dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
main {{ display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }}
figure {{ margin: 0; padding: .6rem; max-width: 100%; background: #fff; border: 1px solid {FRAME}; }}
.many figure {{ max-width: 25rem; }}
img {{ max-width: 100%; height: auto; display: block; }}
figcaption {{ color: #565e68; font-size: .85rem; padding-top: .4rem; }}
</style></head><body><h1>TITLE</h1><dl>FACTS</dl><main>FIGURES</main></body></html>
"""
