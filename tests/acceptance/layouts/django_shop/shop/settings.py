"""Settings as a small shop has them; the ledger is in the default database unless told."""

from __future__ import annotations

import os

from cadasta.workertoolbox.django import database_from_url

SECRET_KEY = "of the tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "orders",
    "cadasta.workertoolbox.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": database_from_url(os.environ["SHOP_DATABASE"])}
if "SHOP_LEDGER" in os.environ:
    DATABASES["workertoolbox"] = database_from_url(os.environ["SHOP_LEDGER"])

CELERY_BROKER_URL = os.environ.get("SHOP_BROKER", "memory://")
CELERY_RESULT_BACKEND = "toolbox+" + os.environ.get("SHOP_LEDGER", os.environ["SHOP_DATABASE"])
CELERY_BEAT_SCHEDULE = {"restock": {"task": "orders.restock", "schedule": 60.0}}
