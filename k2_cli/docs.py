"""`k2 docs`: write the generated pages of docs/, or check that they are what the code says."""

from __future__ import annotations

from pathlib import Path

import click

from k2_core.dictionary import data_dictionary
from k2_core.errors import BadInput

DOCS = Path(__file__).resolve().parents[1] / "docs"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a page is out of date.")
def docs(check: bool) -> None:
    """Write docs/DATA.md from the contracts and docs/CHECKS.md from the asset checks."""
    from k2_assets.check_page import checks_page  # Dagster takes two seconds to import

    for name, text in {"DATA.md": data_dictionary(), "CHECKS.md": checks_page()}.items():
        page = DOCS / name
        if not check:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            raise BadInput(f"docs/{page.name} is not what the code says; run `k2 docs`")
        click.echo(f"docs/{page.name}: {'up to date' if check else 'written'}")
