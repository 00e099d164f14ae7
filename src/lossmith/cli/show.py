"""``lossmith show``: the card of one loss."""

import inspect
import json

import click

from lossmith.cli.options import JSON, Unusable


@click.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show what the card of the loss NAME (or an alias) claims."""
    from lossmith.core.catalogue import card as find

    try:
        card = find(name)
    except ValueError as error:
        raise Unusable(str(error)) from None
    if as_json:
        click.echo(json.dumps(card.to_dict(), indent=2, ensure_ascii=False))
        return
    assert card.function is not None
    click.echo(f"lossmith.{card.name}{inspect.signature(card.function)}\n")
    click.echo(f"{inspect.getdoc(card.function)}\n")
    facts = {
        "formula": card.formula,
        "task": ", ".join(card.tasks),
        "coupling": card.coupling,
        "calls": " or ".join(signature.describe() for signature in card.signatures),
        "elicits": card.elicits,
        "link": card.link,
        "same as": card.same_as,
        "largest gradient": card.gradient_bound,
        "claims": ", ".join(
            claim.replace("_", " ")
            for claim in ("convex", "symmetric", "zero_at_target", "nonnegative", "robust")
            if getattr(card, claim)
        ),
        "aliases": ", ".join(card.aliases),
        "use when": card.use_when,
        "avoid when": card.avoid_when,
        "source": card.source,
    }
    for label, fact in facts.items():
        if fact not in (None, ""):
            click.echo(f"{label + ':':<18}{fact}")
