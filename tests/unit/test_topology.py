"""Which queue a task goes to, and what its publish declares."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.common import Broadcast

from cadasta.workertoolbox.errors import TopologyError
from cadasta.workertoolbox.routing.names import plain_routing_key
from cadasta.workertoolbox.routing.queues import monitor_queue, work_queue
from cadasta.workertoolbox.routing.router import Declaration, Router

EXCHANGE = Exchange("task_exchange", type="topic")
NAMES = ("export", "export.pdf", "data.sync", "celery")
DELAY = ".".join(f"{5:028b}")


def make_router(**options: Any) -> Router:
    queue_type = options.pop("queue_type", "classic")
    queues = {name: work_queue(name, EXCHANGE, queue_type) for name in NAMES}
    return Router(queues, monitor_queue("platform.fifo", EXCHANGE, queue_type), **options)


def declared(route: dict[str, Any]) -> list[str]:
    return [entity.name for entity in route["declare"]]


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("export", "export"),
        ("export.csv", "export"),
        ("export.pdf", "export.pdf"),
        ("export.pdf.render", "export.pdf"),
        ("export.pdfs.render", "export"),
        ("exports.csv", "celery"),
        ("data.load", "celery"),
        ("data.sync.all", "data.sync"),
        ("celery.chord_unlock", "celery"),
        ("platform.fifo", "celery"),
        ("platform.fifo.x", "celery"),
        ("", "celery"),
        ("...", "celery"),
    ],
)
def test_a_task_goes_to_the_longest_prefix_of_its_name(task: str, queue: str) -> None:
    route = make_router()(task, (), {}, {})
    assert route["routing_key"] == route["queue"].name == queue
    assert route["exchange"] == "task_exchange"
    assert declared(route) == [queue, "platform.fifo"]


@given(st.text(alphabet="export.dfasync", max_size=20))
def test_any_name_is_routed_to_a_queue_that_is_its_prefix(task: str) -> None:
    name = make_router().queue_for(task)
    assert name == "celery" or (task + ".").startswith(name + ".")


def test_celery_may_change_what_it_is_given() -> None:
    router = make_router()
    first = router("export.x", (), {}, {})
    first.pop("queue")
    assert router("export.x", (), {}, {})["queue"].name == "export"


def test_a_named_queue_wins() -> None:
    router = make_router()
    route = router("export.x", (), {}, {"queue": router.queues["data.sync"]})
    assert route["routing_key"] == "data.sync"
    assert declared(route) == ["data.sync", "platform.fifo"]


def test_options_of_the_tasks_class_that_are_none_do_not_count() -> None:
    route = make_router()(
        "export.x", (), {}, {"queue": None, "exchange": None, "routing_key": None}
    )
    assert route["routing_key"] == "export"


def sig(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"task": task, "args": args, "kwargs": {}, "options": options}


def built_in(name: str, **kwargs: Any) -> dict[str, Any]:
    return {**sig(f"celery.{name}"), "kwargs": kwargs}


EXPORT, SYNC = sig("export.x"), sig("data.sync.all")


@pytest.mark.parametrize(
    ("body", "queue"),
    [
        (built_in("chain", tasks=[EXPORT, SYNC]), "export"),
        (built_in("group", tasks=[SYNC, EXPORT]), "data.sync"),
        (built_in("chain", tasks=(built_in("group", tasks=[SYNC]), EXPORT)), "data.sync"),
        (built_in("chord", header=[EXPORT, SYNC], body=SYNC), "export"),
        (built_in("chord", header=built_in("group", tasks=[EXPORT]), body=SYNC), "export"),
        (built_in("starmap", task=SYNC, it=[[1]]), "data.sync"),
        (built_in("group", tasks=[built_in("accumulate", index=0), SYNC]), "data.sync"),
        (built_in("chain", tasks=[sig("export.x", queue="data.sync")]), "data.sync"),
        (built_in("chain", tasks=[sig("unlisted")]), "celery"),
        (built_in("chain", tasks=[]), "celery"),
        (built_in("accumulate", index=0), "celery"),
    ],
)
def test_what_waits_for_a_chord_goes_where_its_bodys_first_task_goes(
    body: dict[str, Any], queue: str
) -> None:
    router = make_router()
    # Celery has asked for the queue of "celery.chain" and gives it here.
    guessed = router(body["task"], (), None, {"result": [], "interval": None})["queue"]
    assert guessed.name == "celery"
    options: dict[str, Any] = {"queue": guessed, "priority": 0}
    route = router("celery.chord_unlock", ("group-id", body), {}, options)
    assert (route["queue"].name, declared(route)) == (queue, [queue, "platform.fifo"])
    # Celery lets the options win over the route.
    assert getattr(options.get("queue"), "name", queue) == queue


def test_what_waits_for_a_chord_goes_where_the_user_says() -> None:
    routes = {"celery.group": {"queue": "data.sync"}}
    router = make_router(user_routes=routes)
    body = built_in("group", tasks=[EXPORT])
    guessed = router("celery.group", (), None, {})["queue"]
    assert guessed.name == "data.sync"
    for one in (body, {**body, "options": {"queue": "data.sync"}}):
        route = router("celery.chord_unlock", ("group-id", one), {}, {"queue": guessed})
        assert route["queue"].name == "data.sync"
    retried = {"exchange": "task_exchange", "routing_key": "data.sync"}
    assert router("celery.chord_unlock", ("id", body), {}, retried)["queue"].name == "data.sync"


def test_the_monitor_queue_is_no_destination() -> None:
    router = make_router()
    with pytest.raises(TopologyError, match="is the monitor queue"):
        router("export.x", (), {}, {"queue": router.monitor})
    with pytest.raises(TopologyError, match="reaches no queue"):
        router("export.x", (), {}, {"routing_key": "platform.fifo"})


def test_a_retry_goes_back_to_where_the_task_came_from() -> None:
    options = {"exchange": "task_exchange", "routing_key": "data.sync", "priority": 0}
    route = make_router()("export.x", (), {}, options)
    assert route["routing_key"] == "data.sync"
    assert options == {"priority": 0}


def test_a_retry_of_a_delayed_task_loses_the_delay() -> None:
    options = {"exchange": "celery_delayed_27", "routing_key": f"{DELAY}.data.sync"}
    route = make_router()("export.x", (), {}, options)
    assert (route["exchange"], route["routing_key"]) == ("task_exchange", "data.sync")
    assert options == {}


def test_the_default_exchange_to_one_of_our_queues_becomes_ours() -> None:
    route = make_router()("x", (), {}, {"exchange": "", "routing_key": "export"})
    assert (route["exchange"], route["routing_key"]) == ("task_exchange", "export")


def test_a_key_that_reaches_no_queue_is_an_error() -> None:
    with pytest.raises(TopologyError, match=r"'nowhere' of task 'x' reaches no queue"):
        make_router()("x", (), {}, {"routing_key": "nowhere"})


def test_a_key_that_contradicts_the_queue_is_an_error() -> None:
    router = make_router()
    options = {"queue": router.queues["export"], "routing_key": "data.sync"}
    with pytest.raises(TopologyError, match="does not lead to the queue 'export'"):
        router("x", (), {}, options)


def test_strays_go_where_the_caller_said_and_are_marked() -> None:
    router = make_router()
    foreign = Queue("foreign", Exchange("other"), routing_key="foreign")
    route = router("x", (), {}, {"queue": foreign})
    assert set(route) == {"declare"}
    assert type(route["declare"]) is Declaration
    assert declared(route) == ["foreign", "platform.fifo"]
    route = router("x", (), {}, {"exchange": "other", "routing_key": "k"})
    assert declared(route) == ["platform.fifo"]
    everyone = Broadcast("everyone")
    assert declared(router("x", (), {}, {"queue": everyone})) == ["everyone", "platform.fifo"]


def test_what_the_caller_declares_is_added() -> None:
    more = Queue("more")
    options = {"declare": [more]}
    route = make_router()("export.x", (), {}, options)
    assert declared(route) == ["export", "platform.fifo", "more"]
    assert "declare" not in options


def test_routes_of_the_user_are_asked_first_and_completed() -> None:
    router = make_router(user_routes={"special.*": {"queue": "data.sync", "priority": 3}})
    route = router("special.x", (), {}, {})
    assert (route["routing_key"], route["priority"]) == ("data.sync", 3)
    assert declared(route) == ["data.sync", "platform.fifo"]
    assert router("export.x", (), {}, {})["routing_key"] == "export"
    assert (
        router("special.x", (), {}, {"queue": router.queues["export"]})["routing_key"] == "export"
    )
    with pytest.raises(TopologyError, match="task_routes names the queue 'gone'"):
        make_router(user_routes={"x": "gone"})("x", (), {}, {})


def test_quorum_publishes_have_a_declaration_of_their_own() -> None:
    router = make_router(queue_type="quorum")
    first, second = (router("export.x", (), {}, {})["declare"] for _ in range(2))
    assert first is not second
    assert router.quorum


def test_a_router_can_be_pickled() -> None:
    router = pickle.loads(pickle.dumps(make_router(message_groups=True)))
    assert router("export.x", (), {}, {})["routing_key"] == "export"
    assert router.message_groups


def test_the_delay_is_taken_off_a_routing_key() -> None:
    assert plain_routing_key(f"{DELAY}.data.sync") == "data.sync"
    assert plain_routing_key("data.sync") == "data.sync"
    assert plain_routing_key("0.1.data") == "0.1.data"
