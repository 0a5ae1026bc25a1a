"""django-eventstream on Daphne, as its README has it: channels, send_event, no storage."""

from __future__ import annotations

import time
from typing import Any

import django_eventstream
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django_eventstream import send_event

from benchmarks.servers.triggers import text, user_id


def send(request: HttpRequest) -> JsonResponse:
    users = int(request.GET.get("users", 0))
    started = time.monotonic()
    for number in range(int(request.GET["n"])):
        send_event(user_id(number % users) if users else "bench", "message", text())
    return JsonResponse({"took": time.monotonic() - started})


def ping(request: HttpRequest) -> HttpResponse:
    return HttpResponse("pong")


streams: Any = include(django_eventstream.urls)
urlpatterns = [path("sse/stream", streams), path("send", send), path("ping", ping)]
application = get_asgi_application()
