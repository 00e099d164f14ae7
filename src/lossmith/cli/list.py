"""``lossmith list``: the catalogue, one line for each loss."""

import click

from lossmith.cli.options import JSON, Unusable


@click.command()
@click.option("--task", metavar="TASK", help="Only losses for this task, such as regression.")
@JSON
def list(task: str | None, as_json: bool) -> None:
    """List the losses of the catalogue."""
    import json

    from lossmith.core.catalogue import cards

    tasks = sorted({one for card in cards().values() for one in card.tasks})
    if task is not None and task not in tasks:
        raise Unusable(f"--task must be one of {', '.join(tasks)}, got {task!r}")
    chosen = [card for card in cards().values() if task is None or task in card.tasks]
    if as_json:
        click.echo(json.dumps([card.to_dict() for card in chosen], indent=2, ensure_ascii=False))
        return
    width = max((len(card.name) for card in chosen), default=0)
    for card in chosen:
        click.echo(f"{card.name:<{width}}  {card.use_when}")
