"""The verbs in the order in which a user meets them; each file of this folder holds one or two."""

from __future__ import annotations

import typer

from tuneloop.cli import (
    analyze,
    chat,
    compare,
    data,
    doctor,
    evaluate,
    generate,
    plan,
    power,
    report,
    run,
    scores,
    serve,
    sweep,
    train,
)
from tuneloop.cli.review import app as review

app = typer.Typer(
    help="Fine-tune a language model and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.demo)
app.command()(run.run)
app.command()(data.data)
app.command()(generate.generate)
app.command()(plan.plan)
app.command()(doctor.doctor)
app.command()(train.train)
app.command()(sweep.sweep)
app.command(name="eval")(evaluate.evaluate)
app.command()(compare.compare)
app.add_typer(scores.app, name="scores")
app.command()(power.power)
app.command()(analyze.analyze)
app.command()(report.report)
app.command()(chat.chat)
app.add_typer(review, name="review")
app.command()(serve.serve)
