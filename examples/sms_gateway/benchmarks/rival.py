"""The rival of the api: a Flask view that publishes the same task by Celery alone."""

from __future__ import annotations

import os

from celery import Celery
from flask import Flask, request
from flask.typing import ResponseReturnValue

celery = Celery("rival", broker=os.environ["CELERY_BROKER_URL"])
celery.conf.task_default_queue = "rival"
if os.environ.get("RIVAL_CONFIRMS"):
    celery.conf.broker_transport_options = {"confirm_publish": True}
application = Flask("rival")


@application.post("/message")
def message() -> ResponseReturnValue:
    """Take a text, as a view without any care would."""
    form = request.form
    text = {
        "request_id": form["request_id"],
        "mobile_number": form["mobile_number"],
        "shortcode": form["shortcode"],
        "message": form["message"],
        "sent_at": form["timestamp"],
        "posted": form.to_dict(),
    }
    celery.send_task("message.receive", ["chikka", text])
    return {"status": 202, "message": "ACCEPTED"}, 202
