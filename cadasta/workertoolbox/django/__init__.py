"""The ledger in a Django project: models that are only read, an admin, migrate and checks.

Add ``"cadasta.workertoolbox.django"`` to ``INSTALLED_APPS``; the models are in ``.models``. Nothing
here imports Django before a settings module may: settings call :func:`database_from_url`.
"""

from __future__ import annotations

from .databases import database_from_url as database_from_url
from .databases import ledger_alias as ledger_alias

__all__ = ["database_from_url", "ledger_alias"]
