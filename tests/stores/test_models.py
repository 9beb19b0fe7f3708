"""Each store against a model so simple that it can be seen to be right."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkrein.ports import Use

PLACES = itertools.count()
KEYS = ("a", "b", "c")

uses = st.lists(
    st.builds(
        Use,
        key=st.sampled_from(KEYS),
        limit=st.integers(0, 6),
        amount=st.integers(0, 4),
        window=st.sampled_from([0.0, 0.0, 1.0, 2.5, 10.0, 10.0]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda use: use.key,
)
times = st.one_of(st.integers(0, 30).map(lambda n: n / 2), st.floats(-5, 40))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), uses, times),
        st.tuples(st.just("reserve"), uses, times),
        st.tuples(st.just("release"), st.integers(0, 8), st.none() | uses),
    ),
    max_size=25,
)


class Model:
    """Keeps every use for ever, and adds up."""

    def __init__(self) -> None:
        self.taken_by: list[tuple[int, str, int, float | None]] = []
        self.latest: dict[str, float] = {}
        self.span: dict[str, float] = {}

    def reserve(self, token: int, wanted: list[Use], now: float) -> bool:
        if any(self.taken(use, now) + use.amount > use.limit for use in wanted):
            return False
        for key, _, amount, window in wanted:
            if amount and window:
                self.latest[key] = at = max(now, self.latest.get(key, now))
                self.span[key] = max(window, self.span.get(key, 0.0))
                kept = at - self.span[key]
                self.taken_by = [
                    one for one in self.taken_by if one[1] != key or one[3] is None or one[3] > kept
                ]
                self.taken_by.append((token, key, amount, at))
            elif amount:
                self.taken_by.append((token, key, amount, None))
        return True

    def release(self, token: int, given_back: list[Use]) -> None:
        keys = {use.key for use in given_back}
        self.taken_by = [one for one in self.taken_by if one[0] != token or one[1] not in keys]

    def taken(self, use: Use, now: float) -> int:
        at = max(now, self.latest.get(use.key, now))
        return sum(
            amount
            for _, key, amount, when in self.taken_by
            if key == use.key
            and (when is None if not use.window else when is not None and when > at - use.window)
        )


def test_a_store_and_its_model(store: Any) -> None:
    """Whatever is asked, at whatever times, store and model say the same."""

    examples = 25 if store.waits else 100

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(steps)
    def compare(taken_steps: list[Any]) -> None:
        place, model = f"{next(PLACES)}-", Model()
        named = lambda wanted: [use._replace(key=place + use.key) for use in wanted]
        tokens: list[tuple[int, str, list[Use]]] = []
        for number, (kind, *rest) in enumerate(taken_steps):
            if kind == "reserve":
                wanted, now = rest
                token = store.reserve(named(wanted), now)
                assert (token is not None) == model.reserve(number, wanted, now)
                if token is not None:
                    tokens.append((number, token, wanted))
            elif tokens:
                its_number, token, wanted = tokens[rest[0] % len(tokens)]
                given_back = wanted if rest[1] is None else rest[1]
                store.release(token, named(given_back))
                model.release(its_number, given_back)
        for key, window in itertools.product(KEYS, (0.0, 1.0, 10.0)):
            use = Use(key, 6, 1, window)
            for now in (0.0, 40.0):
                assert store.taken(use._replace(key=place + key), now) == model.taken(use, now)

    compare()
