"""The command line: ``python -m sms_gateway api``, ``simulator``, ``demo``, and for operators."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from .errors import GatewayError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 1 and one line where a setting or the database cannot work."""
    parser = argparse.ArgumentParser(prog="sms_gateway", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("api", help="serve the HTTP api on SMS_HOST:SMS_PORT")
    commands.add_parser("simulator", help="serve a local provider on 127.0.0.1:8001")
    demo = commands.add_parser("demo", help="show all of it, on the embedded broker")
    demo.add_argument("--keep", action="store_true", help="keep the folder of the demonstration")
    from . import operations  # its commands describe themselves

    operations.add_commands(commands)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "api":
            from .api import make_app
            from .settings import settings
            from .web import serve

            serve(make_app(), settings().host, settings().port)
        elif chosen.command == "simulator":
            from .simulator.server import main as simulate

            simulate()
        elif chosen.command == "demo":
            from .demo import demonstrate

            sys.exit(demonstrate(keep=chosen.keep))
        else:
            sys.exit(operations.run(chosen))
    except GatewayError as error:
        sys.exit(f"sms_gateway: {error}")
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        sys.exit(f"sms_gateway: the database cannot be used: {reason}. See SMS_DATABASE_URL.")


if __name__ == "__main__":
    main()
