"""How much a command says, and to whom: ``--quiet``, ``--json``, and the results for people or for machines."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace


def add_quiet_option(parser: ArgumentParser) -> None:
    """``--quiet``, which :func:`heed_quiet` puts into effect."""
    parser.add_argument("--quiet", action="store_true", help="no log and no progress, only results and errors")


def add_json_option(parser: ArgumentParser) -> None:
    """``--json``, which :func:`tell` heeds."""
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, and nothing else")


def heed_quiet(options: Namespace) -> None:
    """Turn the log and the progress of this process and its workers off if the options say so."""
    if options.get("quiet"):
        # The handlers are told, not the logger: reports collect warnings from the same logger.
        for handler in logging.getLogger("synthmtl").handlers:
            handler.setLevel(logging.ERROR)
        logging.getLogger("synthmtl.progress").setLevel(logging.ERROR)


def tell(options: Namespace, summary: Mapping[str, Any], *lines: str) -> None:
    """Print what came out: ``lines`` for people, the last saying where it is, or with ``--json`` the summary."""
    print(json.dumps(summary) if options.json else "\n".join(lines))


def counted(number: int, what: str) -> str:
    """E.g. ``1 face`` or ``2 faces``."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"
