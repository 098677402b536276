"""A text goes in and its reply comes out, by real processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from sms_gateway.local import Local, wait_until

from cadasta.workertoolbox import Config, Ledger


@pytest.mark.parametrize("servers", ["embedded", "rabbitmq"])
def test_a_conversation_is_one_tree(
    servers: str, gateway: Callable[..., Local], request: pytest.FixtureRequest
) -> None:
    environ = request.getfixturevalue("on_servers") if servers == "rabbitmq" else {}
    with gateway(**environ) as local:
        local.start_web()
        local.start_worker("worker")
        local.start_monitor()
        local.wait_until_ready("worker", "monitor")

        posted = local.text("639181234567", "  BORD \t oN ")
        assert posted["status"] == 202
        [sent] = wait_until(local.sent, "a reply")
        assert sent["mobile_number"] == "639181234567"
        assert sent["message"] == "You are subscribed to BORD. Text BORD OFF to end."

        path = f"/messages/{posted['request_id']}"
        found = wait_until(
            lambda: (it := local.operator("GET", path)[1])["reply"]["receipts"] and it, "a receipt"
        )
        assert found["delivery_state"] == "sent"
        assert found["reply"]["credits_cost"] == "1"
        assert found["inbound"]["mobile_number"] == "+639181234567"
        assert found["inbound"]["posted"]["message"] == "  BORD \t oN "

        app = Celery("reader", set_as_current=False)
        url = (
            environ.get("SMS_DATABASE_URL")
            or f"sqlite:///{local.folder}/.sms_gateway/ledger.sqlite3"
        )
        app.config_from_object(
            Config(["message"], broker_url="memory://", result_backend=f"toolbox+{url}")
        )
        with Ledger.from_app(app) as ledger:

            def whole_tree() -> Any:
                tree = ledger.workflow(found["task_ids"]["message"])
                return tree and len(tree.tasks) == 3 and tree.state == "SUCCESS" and tree

            tree = wait_until(whole_tree, "the tree")
        names = [(depth, node.task.name) for depth, node in tree.root.walk()]
        assert names == [(0, "message.receive"), (1, "bord.handle"), (2, "reply.send")]
        assert set(found["task_ids"].values()) == {task.task_id for task in tree.tasks}
        assert set(local.stop().values()) <= {0}
