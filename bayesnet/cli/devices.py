"""`bayesnet devices`."""

from __future__ import annotations

from rich.table import Table

from bayesnet.cli._console import plain_errors, show


@plain_errors
def devices() -> None:
    """List what JAX can run on, and which device "auto" picks.

    [bold]Use a name from the first column as --device, or as device= in Python.[/bold]
    """
    from bayesnet.devices import cpu_count, describe

    table = Table("device", "kind", "used by auto", box=None, pad_edge=False)
    for row in describe():
        table.add_row(row["name"], row["kind"], "yes" if row["used"] else "")
    show(table, f"CPU cores this process may use: {cpu_count()}")
