"""What the pages have in common: their templates' settings and their style."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from ..base import words

_HERE = Path(__file__).parent
_FILTERS = dict(
    count=words.count,
    share=words.share,
    number=words.number,
    duration=words.duration,
    size=words.size,
)


def page_template(file: Path) -> jinja2.Template:
    """A template that shows all names as text, and refuses variables that are not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(_FILTERS)
    return environment.get_template(file.name)


def page_style() -> Markup:
    """The style sheet."""
    style = _HERE / 'style.css'
    return Markup(style.read_text(encoding='utf-8'))
