"""The commands about the folder of a run over a data set: `spray` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relprop.cli import printing
from relprop.cli.options import AsJson
from relprop.cli.printing import errors_in_one_line, writing

Folder = Annotated[str, typer.Argument(help="The folder of a run, as `relprop run` writes it, or its address.")]


def spray(
    run: Folder,
    out: Annotated[
        Path | None,
        typer.Option(help="The page.", show_default="spray.html in the run's folder; here, if that is an object store"),
    ] = None,
    by: Annotated[str, typer.Option(help="Classes: predicted, or target, which was explained.")] = "predicted",
    on: Annotated[str | None, typer.Option(help="A layer that was kept as channels.", show_default="the maps")] = None,
    size: Annotated[int, typer.Option(help="Blocks along each axis of a map.")] = 14,
    neighbours: Annotated[int, typer.Option(help="Nearest neighbours that each map is joined with.")] = 10,
    method: Annotated[str, typer.Option(help="kmeans or hdbscan.")] = "kmeans",
    view: Annotated[str | None, typer.Option(help="tsne or umap.", show_default="eigenvectors")] = None,
    prototypes: Annotated[
        int | None, typer.Option(help="Points that stand for the maps of a class.", show_default="above 50,000 maps")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where k-means and views start.")] = 0,
    source: Annotated[str | None, typer.Option(help="The run's source, to show its pictures.")] = None,
    most: Annotated[int, typer.Option(help="Of how many classes the page shows the clusters.", min=1)] = 10,
    json: AsJson = False,
) -> None:
    """Cluster the maps of each class: by what strategies does the network decide, and which class stands out?"""
    with errors_in_one_line():
        from relprop.data import open_run
        from relprop.data.strategies import COLUMNS

        found = open_run(run).spray(
            by=by, on=on, size=size, neighbours=neighbours, method=method, view=view, prototypes=prototypes, seed=seed
        )
        place = out or Path("" if "://" in run else run) / "spray.html"
        with writing(place):
            found.save(place, most=most, source=source)
        if json:
            printing.data([
                {"class": one.target, "samples": len(one.keys), "eigenvalue": one.eigenvalue, "silhouette": one.silhouette,
                 "distance": None if one.distance != one.distance else one.distance, "stands_out": one.stands_out,
                 "sizes": one.sizes, "central": one.central}
                for one in found
            ])  # fmt: skip
        else:
            shown = [
                n for n, name in enumerate(COLUMNS[:-1]) if name != "stands out"
            ]  # which the sentence after it says
            rows = [tuple(row[n] for n in shown) for row in found.rows()]
            printing.table(tuple(COLUMNS[n] for n in shown), rows, numbers=COLUMNS[1:-3])
            typer.echo(found.verdict)
            typer.echo(str(place))


def export(
    run: Folder,
    to: Annotated[str, typer.Option(help="parquet, hf, hdf5, npz, virelay, or csv for the table alone.")],
    out: Annotated[Path, typer.Option(help="The folder; for hdf5 and csv the file.")],
    source: Annotated[str | None, typer.Option(help="For virelay: the run's source, for its pictures.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For virelay: the network that reads the pictures.", show_default="the run's")
    ] = None,
    neighbours: Annotated[int, typer.Option(help="For virelay: as for `relprop spray`.")] = 10,
) -> None:
    """Write a run for other programs, unit by unit. The same line again writes what is missing."""
    with errors_in_one_line():
        from relprop.data import open_run

        found = open_run(run)
        settings: dict[str, Any] = {"source": source, "model": model}
        if to == "virelay" and source is not None:
            settings["spray"] = found.spray(neighbours=neighbours, view="tsne")
        with writing(out):
            typer.echo(str(found.export(to, out, **settings)))
