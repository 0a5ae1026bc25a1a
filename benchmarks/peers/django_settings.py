"""The settings of django_app: what its README asks for, and what Django must have."""

ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ASGI_APPLICATION = "benchmarks.peers.django_app.application"
INSTALLED_APPS = ["daphne", "django_eventstream"]
ROOT_URLCONF = "benchmarks.peers.django_app"
SECRET_KEY = "for the benchmark alone"
USE_TZ = True
