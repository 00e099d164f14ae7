"""``lossmith diagnose``: what the data say before anything is trained."""

import json

import click

from lossmith.cli.options import DATA, JSON, TARGET, TASK, complaints, plain


@click.command()
@DATA
@TARGET
@TASK
@JSON
def diagnose(data: str, target: str | None, task: str | None, as_json: bool) -> None:
    """Say what DATA (a file or a bundled set) tells about the choice of a loss."""
    with complaints():
        from lossmith.choose import diagnose as run

        found = run(data, target, task=task)
    if as_json:
        content = {
            "data": found.name,
            "target": found.target_name,
            "rows": found.rows,
            "columns": found.columns,
            "kind": found.kind,
            "reading": found.reading,
            "reason": found.reason,
            "classes": list(found.classes),
            "findings": [vars(finding) for finding in found.findings],
        }
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(plain(found.verdict))
    for finding in found.findings:
        click.echo(plain(f"- {finding.sentence}"))
        if finding.speaks_for:
            click.echo(f"  speaks for: {', '.join(finding.speaks_for)}")
        if finding.speaks_against:
            click.echo(f"  speaks against: {', '.join(finding.speaks_against)}")
