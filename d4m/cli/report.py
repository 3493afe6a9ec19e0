"""Write the report: a page for people, which needs neither network nor server."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from d4m.cli.app import RecipesArgument, app, console, open_pipeline, refuse_output
from d4m.environment import store_root


@app.command()
def report(
    recipes: RecipesArgument,
    output: Annotated[
        Path | None,
        typer.Option(help="The .html file to write; in the store's folder `reports` if not given."),
    ] = None,
    redundancy: Annotated[
        bool,
        typer.Option(
            "--redundancy",
            help="Also measure how much images repeat one another, as `d4m diagnose` does: trains "
            "a student on each part of them.",
        ),
    ] = False,
    parts: Annotated[
        int, typer.Option(min=2, help="Parts that a set of images is cut into for that.")
    ] = 5,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write images, scores, curves, costs and history of recipes as one page of HTML.

    The page loads nothing and runs no script, so that it can be sent by mail. Artifacts that are
    not made yet become sentences that say what to run; nothing is computed.
    """
    from d4m.page.write import report_path, write_report

    if output is not None:
        refuse_output(output, ".html")
    pipelines = {name: open_pipeline(name) for name in recipes}
    file = output or report_path(store_root(), [each.recipe.name for each in pipelines.values()])
    write_report(pipelines, file, redundancy=parts if redundancy else None)
    console.print(f"wrote {escape(str(file))}", soft_wrap=True)
    if show and not webbrowser.open(file.absolute().as_uri()):
        console.print("no browser was found to open it")
