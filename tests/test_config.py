"""Every default and rule of the settings."""

from __future__ import annotations

import pytest

from sse_broker import BrokerConfig, InvalidConfig
from sse_broker.config import settings

DEFAULTS = {
    "client_buffer_size": 256,
    "heartbeat_interval": 30.0,
    "client_timeout": 300.0,
    "enable_topics": True,
    "max_connections": 0,
    "history_size": 0,
    "resume_window": 60.0,
    "overflow": "catch_up",
    "max_stream_age": 600.0,
    "max_connections_per_user": 0,
    "retry": 3000,
    "heartbeat_style": "event",
    "max_message_bytes": 262144,
    "require_tenant": False,
}
WRONG = [
    ("client_buffer_size", 0, ">= 1"),
    ("client_buffer_size", "many", "a whole number"),
    ("client_buffer_size", True, "a whole number"),
    ("client_buffer_size", 1.5, "a whole number"),
    ("heartbeat_interval", 4.9, ">= 5"),
    ("heartbeat_interval", float("nan"), "a number"),
    ("client_timeout", 59, ">= 60"),
    ("max_connections", -1, ">= 0"),
    ("history_size", -1, ">= 0"),
    ("overflow", "explode", "catch_up / disconnect"),
    ("retry", 999, "1000 to 60000"),
    ("enable_topics", "perhaps", "true / false"),
    ("heartbeat_style", "loud", "event / comment"),
]


def test_the_defaults_are_the_seeds() -> None:
    config = BrokerConfig()
    for name, value in DEFAULTS.items():
        assert getattr(config, name) == value
    assert set(DEFAULTS) <= {setting.name for setting in settings()}


@pytest.mark.parametrize(("name", "value", "right"), WRONG)
def test_a_wrong_setting_is_named_with_its_value_and_what_would_be_right(
    name: str, value: object, right: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        BrokerConfig(**{name: value})

    assert caught.value.field == name
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)
    assert right in str(caught.value)


def test_text_is_converted_and_other_keys_are_left_alone() -> None:
    config = BrokerConfig.from_mapping(
        {
            "SSE_CLIENT_BUFFER_SIZE": "512",
            "SSE_HEARTBEAT_INTERVAL": 10,
            "SSE_ENABLE_TOPICS": "off",
            "SSE_JWT_KEY": "x",
            "SECRET_KEY": "y",
        }
    )

    assert config.client_buffer_size == 512
    assert config.heartbeat_interval == 10.0
    assert config.enable_topics is False


def test_text_that_does_not_convert_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="max_connections = 'ten'"):
        BrokerConfig.from_mapping({"SSE_MAX_CONNECTIONS": "ten"})
