"""Tasks of the shop."""

from __future__ import annotations

from celery import shared_task


@shared_task(name="orders.pay")
def pay(order: int, card: str) -> str:
    return f"order {order} is paid"


@shared_task(name="orders.restock")
def restock() -> None:
    return None
