"""How much one client may subscribe to: settings, asked before anything is remembered."""

from __future__ import annotations

from collections.abc import Sequence

from sse_broker.config import BrokerConfig
from sse_broker.errors import InvalidTopic
from sse_broker.wire.topics import is_pattern

__all__ = ["check_segments", "check_subscription", "excess_of"]


def excess_of(config: BrokerConfig, topics: Sequence[str]) -> str:
    """Return what is too much about the names and patterns of one client; empty if nothing is."""
    if len(topics) > config.max_topics:
        return f"{len(topics)} topics; max_topics is {config.max_topics}"
    patterns = sum(map(is_pattern, topics))
    if patterns > config.max_patterns:
        return f"{patterns} patterns; max_patterns is {config.max_patterns}"
    for topic in topics:
        if topic.count(":") >= config.max_topic_segments:
            return _long(config, topic)
    return ""


def check_subscription(config: BrokerConfig, topics: Sequence[str]) -> None:
    """Refuse more than one client may subscribe to.

    :raises InvalidTopic: it names the setting whose limit is passed.
    """
    excess = excess_of(config, topics)
    if excess:
        raise InvalidTopic(excess, field="topics")


def check_segments(config: BrokerConfig, topic: str) -> None:
    """Refuse a name with more segments than anybody can subscribe to.

    :raises InvalidTopic: it names the setting.
    """
    if topic.count(":") >= config.max_topic_segments:
        raise InvalidTopic(_long(config, topic), field="topic")


def _long(config: BrokerConfig, topic: str) -> str:
    return (
        f"{topic!r} has {topic.count(':') + 1} segments;"
        f" max_topic_segments is {config.max_topic_segments}"
    )
