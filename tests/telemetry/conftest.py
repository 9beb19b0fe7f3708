"""Fixtures: a real provider that keeps its spans in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def exporter() -> Any:
    """Keeps what has ended."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: Any) -> Iterator[Any]:
    """A tracer of a provider of its own: the global one is set once in a process."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests")
    provider.shutdown()


@pytest.fixture
def spans(exporter: Any) -> Callable[[], dict[str, Any]]:
    """Return the ended spans by name; of several with one name, the last."""
    return lambda: {span.name: span for span in exporter.get_finished_spans()}
