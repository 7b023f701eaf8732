"""gismo ray: the integration with a running Ray cluster. Needs Ray only when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gismo_core.cli import exits
from gismo_core.cli.options import address_option, json_option
from gismo_core.cli.output import show_json, show_pairs, show_table, size_text

if TYPE_CHECKING:
    from gismo_core.ray.check import Node, Report


@click.group("ray", epilog=exits.HELP)
def ray_command() -> None:
    """Look at Ray on Gismo."""


@ray_command.command("check", epilog=exits.HELP)
@address_option
@json_option
def check_command(address: str | None, as_json: bool) -> int:
    """Say for a running cluster, node by node, whether objects are kept in the store, and why not.

    Runs one small task on each node. Ends with 1 if anything is not in place, with 3 if there is no cluster.
    """
    from gismo_core.ray.check import check

    report = check(address)
    if as_json:
        show_json(report)
    else:
        _show(report)
    return exits.OK if report.ok else exits.ERROR


def _show(report: Report) -> None:
    show_table(
        ("node", "address", "gismo", "ray", "python", "store", "host", "objects in the store"),
        [
            (
                node.node_id[:12],
                f"{node.hostname} ({node.address})",
                node.gismo or "-",
                node.ray or "-",
                node.python or "-",
                node.store or "-",
                "-" if node.host_id is None else str(node.host_id),
                "yes" if node.integrated and not node.problems else "NO",
            )
            for node in report.nodes
        ],
    )
    uuids = sorted({node.store_uuid for node in report.nodes if node.store_uuid})
    formats = sorted({f"format {node.store_format}, {node.coherence}" for node in report.nodes if node.store_uuid})
    keeper, records = report.keeper, report.records
    show_pairs(
        [
            ("cluster", f"{report.cluster_id} at {report.address}"),
            ("store", ", ".join(uuids + formats) or "none is open on any node"),
            ("keeper", _place(keeper.node_id, report.nodes) if keeper.alive else "NONE"),
            ("scan", f"complete, {report.scan_s * 1e3:.0f} ms" if report.scan_complete else "INCOMPLETE"),
            (
                "records",
                "-" if records is None else f"{records} ({size_text(report.record_bytes or 0)}), {keeper.freed} freed",
            ),
        ]
    )
    problems = [f"node {node.node_id[:12]}: {problem}" for node in report.nodes for problem in node.problems]
    problems += report.problems
    problems += [one for one in (keeper.problem, report.scan_problem) if one]
    for problem in problems:
        click.echo(f"problem: {problem}")
    click.echo("all is in place" if report.ok else f"{len(problems)} problems; docs/ray.md, Troubleshooting, says more")


def _place(node_id: str | None, nodes: tuple[Node, ...]) -> str:
    for node in nodes:
        if node.node_id == node_id:
            return f"alive, on node {node.node_id[:12]} ({node.hostname})"
    return f"alive, on node {(node_id or '?')[:12]}"
