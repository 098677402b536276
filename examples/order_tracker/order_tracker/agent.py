"""An agent: does the work on a unit, and reports."""

from __future__ import annotations

from typing import Any

from celery import Celery

from .messages import WORK, again_if_broker_is_away, send_report
from .reports import MAX_DETAIL, Report
from .settings import Settings
from .statuses import ERROR, PROCESSING, SUCCESS
from .work import Unit, load_work, words_of


def add_agent_task(app: Celery, settings: Settings) -> None:
    """Give the app the agents' task.

    Raises:
        SettingError: the function that ``RTB_WORK`` names is not there.
    """
    do_work = load_work(settings.work)

    @app.task(name=WORK, bind=True, shared=False)
    def work(
        self: Any, order_id: int, attempt: int, priority: int, payload: dict[str, Any]
    ) -> dict[str, Any]:
        """Work on one unit; returns its status and detail."""

        def tell(status: str, detail: str | None = None) -> None:
            request = self.request
            report = Report(order_id, attempt, status, request.hostname, request.id, detail)
            with again_if_broker_is_away():
                send_report(app, report)

        tell(PROCESSING)
        try:
            made = do_work(Unit(order_id, attempt, priority, payload), settings)
            status, detail = SUCCESS, None if made is None else str(made)[:MAX_DETAIL]
        except Exception as error:  # Whatever the work raises is the unit's error, not the agent's.
            status, detail = ERROR, words_of(error)[:MAX_DETAIL]
        tell(status, detail)
        return {"status": status, "detail": detail}
