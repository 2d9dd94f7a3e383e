"""Token services that are not OAuth: Django with djangorestframework-simplejwt, and with django-rest-knox under /knox,
a project in one file, on loopback.

It must not know who starts it. When it answers, it writes one line of JSON to the file descriptor READY_FD
({"url", "port", "users"}); it ends on SIGTERM, and when its standard input ends: that is its parent's death.

env: READY_FD, STATE (folder: database and signing key; the same folder again remembers everything), CERTIFICATE (PEM
file with key and chain), PORT (0: a free one), ACCESS_TTL, REFRESH_TTL, THROTTLE ("5/min"), APPEND_SLASH (1|0), SKEW
(seconds by which the server's clock is ahead).
"""

# Django and its friends bring no types, and they are not worth stubs here.
# mypy: disable-error-code="import-untyped, misc, no-untyped-call"

import datetime
import json
import os
import secrets
import ssl
import sys
import threading
import time
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

SKEW = float(os.environ.get("SKEW", "0"))
if SKEW:  # before anything else looks at the clock
    real_time, real_datetime = time.time, datetime.datetime

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real_datetime)

    class SkewedDatetime(datetime.datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(real_time() + SKEW, tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    def skewed_time(*_self: object) -> float:  # Django REST framework's throttle makes a method of it
        return real_time() + SKEW

    time.time = skewed_time
    datetime.datetime = SkewedDatetime

import django  # noqa: E402
from django.conf import settings  # noqa: E402

STATE = Path(os.environ["STATE"])
SIGNING_KEY = STATE / "signing-key"
USERS = {"alice": "alice-password", "bob": "bob-password", "inactive": "inactive-password"}


def seconds(name: str, default: str) -> datetime.timedelta:
    return datetime.timedelta(seconds=int(os.environ.get(name, default)))


if not SIGNING_KEY.exists():
    SIGNING_KEY.write_text(secrets.token_hex(32))
settings.configure(
    DEBUG=False,
    SECRET_KEY=SIGNING_KEY.read_text(),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    APPEND_SLASH=os.environ.get("APPEND_SLASH") == "1",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": STATE / "db.sqlite",
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
            },
        }
    },
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "rest_framework",
        "rest_framework_simplejwt.token_blacklist",
        "knox",
    ],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # quick: these are no secrets
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    },
    REST_FRAMEWORK={
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
        "DEFAULT_THROTTLE_RATES": {"login": os.environ.get("THROTTLE", "5/min")},
    },
    SIMPLE_JWT={
        "ACCESS_TOKEN_LIFETIME": seconds("ACCESS_TTL", "60"),
        "REFRESH_TOKEN_LIFETIME": seconds("REFRESH_TTL", "3600"),
        "ROTATE_REFRESH_TOKENS": True,
        "BLACKLIST_AFTER_ROTATION": True,
        "UPDATE_LAST_LOGIN": True,
    },
    REST_KNOX={"TOKEN_TTL": seconds("ACCESS_TTL", "60"), "TOKEN_LIMIT_PER_USER": 5},
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from knox import auth as knox_auth  # noqa: E402
from knox import views as knox_views  # noqa: E402
from rest_framework import authentication, permissions, throttling, views  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_simplejwt import views as jwt_views  # noqa: E402


class Me(views.APIView):
    """Says whose token it was: the API that the tokens are for."""

    permission_classes = (permissions.IsAuthenticated,)

    def get(self, request: Any) -> Any:
        return Response({"user": request.user.username})


class ThrottledObtain(jwt_views.TokenObtainPairView):
    throttle_classes = (throttling.ScopedRateThrottle,)
    throttle_scope = "login"


class KnoxLogin(knox_views.LoginView):
    authentication_classes = (authentication.BasicAuthentication,)


class KnoxMe(Me):
    authentication_classes = (knox_auth.TokenAuthentication,)


urlpatterns = [
    path("token/", jwt_views.TokenObtainPairView.as_view()),
    path("token/refresh/", jwt_views.TokenRefreshView.as_view()),
    path("token/verify/", jwt_views.TokenVerifyView.as_view()),
    path("token/blacklist/", jwt_views.TokenBlacklistView.as_view()),
    path("throttled/token/", ThrottledObtain.as_view()),
    path("me/", Me.as_view()),
    path("knox/login/", KnoxLogin.as_view()),
    path("knox/logout/", knox_views.LogoutView.as_view()),
    path("knox/me/", KnoxMe.as_view()),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own would look the address up in the DNS
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()
        self.base_environ["HTTPS"] = "on"

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(30)  # seconds; a silent client holds its thread no longer than that
        request.do_handshake()  # in the connection's own thread, so that none holds up another
        super().finish_request(request, client_address)


def create_users() -> None:
    from django.contrib.auth.models import User

    for name, password in USERS.items():
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, password=password, is_active=name != "inactive")


def end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    call_command("migrate", verbosity=0)
    create_users()
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "0"))), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(os.environ["CERTIFICATE"])
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    port = server.server_port
    with os.fdopen(int(os.environ["READY_FD"]), "w") as ready:
        print(json.dumps({"url": f"https://localhost:{port}", "port": port, "users": USERS}), file=ready)
    server.serve_forever()


if __name__ == "__main__":
    main()
