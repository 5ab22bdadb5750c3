"""The command line: `penstock serve`, `penstock topics`, `penstock --version`.

Exit status: 0, 1 (it did not work: one sentence on stderr), 2 (usage). Commands import what they
need when they run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from penstock import __version__

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.command == "serve":
        from penstock.cli.serve import serve

        return serve(arguments.properties, arguments.set)
    from penstock.cli.topics import run
    from penstock.errors import PenstockError

    try:
        return run(arguments)
    except (PenstockError, OSError) as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    import argparse

    def fixed_width(prog: str) -> argparse.HelpFormatter:
        # Without a width argparse imports shutil, and with it every compression module.
        return argparse.HelpFormatter(prog, width=98)

    class Parser(argparse.ArgumentParser):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, formatter_class=fixed_width)

    parser = Parser(prog="penstock", description="An event broker for every Apache Kafka client.")
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    serve = commands.add_parser("serve", help="run a broker")
    serve.add_argument(
        "properties", nargs="?", metavar="server.properties", help="configuration, Kafka's format"
    )
    serve.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting over all others"
    )
    topics = commands.add_parser("topics", help="create, list, describe and delete topics")
    actions = topics.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=Parser
    )
    create = _action(actions.add_parser, "create", "create a topic", names="+")
    create.add_argument("--partitions", type=int, default=-1, metavar="N")
    create.add_argument("--replication-factor", type=int, default=-1, metavar="N")
    create.add_argument("--config", action="append", default=[], metavar="KEY=VALUE")
    create.add_argument("--if-not-exists", action="store_true")
    _action(actions.add_parser, "list", "list topics", names=None)
    _action(actions.add_parser, "describe", "show partitions and configuration", names="*")
    delete = _action(actions.add_parser, "delete", "delete topics", names="+")
    delete.add_argument("--if-exists", action="store_true")
    return parser


def _action(
    add_parser: Callable[..., argparse.ArgumentParser],
    name: str,
    text: str,
    names: str | None,
) -> argparse.ArgumentParser:
    parser = add_parser(name, help=text)
    parser.add_argument(
        "--bootstrap", default="127.0.0.1:9092", metavar="HOST:PORT", help="a broker to ask"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    if names is not None:
        parser.add_argument("names", nargs=names, metavar="TOPIC")
    return parser
