"""What the ledger does on every database: the same tests run on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from tests.ledger_contract.asking import Asking
from tests.ledger_contract.helpers import LONG, NOW, SECOND, add_result, record, rows
from tests.ledger_contract.keeping import Keeping
from tests.ledger_contract.reading import Reading
from tests.ledger_contract.recording import Recording
from tests.ledger_contract.untold import Untold

__all__ = ["LONG", "NOW", "SECOND", "LedgerContract", "add_result", "record", "rows"]


class LedgerContract(Recording, Reading, Asking, Keeping, Untold):
    """All of the tests; a subclass has the fixture ``url``, of an empty database."""
