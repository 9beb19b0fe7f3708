"""What every store does, whatever it keeps its counts in."""

from __future__ import annotations

import doctest
import itertools
import sys
import threading

import pytest

from checkrein.errors import ConfigurationError
from checkrein.ports import Use
from checkrein.store import StoreError, memory

MOST = 2**63 - 1
NOW = 1_800_000_000.0


def test_the_example():
    """What the documentation shows is so."""
    assert doctest.testmod(memory).attempted == 6
    assert doctest.testmod(memory).failed == 0


def test_a_budget_is_used_up(store):
    """As many uses as the limit says, and not one more."""
    use = Use("mail", 3)
    tokens = [store.reserve([use], NOW) for _ in range(5)]
    assert [token is not None for token in tokens] == [True, True, True, False, False]
    assert len(set(tokens[:3])) == 3
    assert store.taken(use, NOW) == 3
    assert store.taken(Use("other", 3), NOW) == 0


def test_amounts(store):
    """A use takes its amount; a smaller one may fit where a larger one does not."""
    assert store.reserve([Use("money", 100, 70)], NOW)
    assert store.reserve([Use("money", 100, 31)], NOW) is None
    assert store.reserve([Use("money", 100, 30)], NOW)
    assert store.taken(Use("money", 100), NOW) == 100
    assert store.reserve([Use("none", 0, 1)], NOW) is None


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_all_or_nothing(store, window):
    """One use that does not fit leaves the others untaken, wherever it stands."""
    full = Use("m", 1, 1, window)
    assert store.reserve([full], NOW)
    for others in itertools.permutations([Use("a", 5), full, Use("z", 5, 2, 9.0)]):
        assert store.reserve(others, NOW) is None
    assert store.taken(Use("a", 5), NOW) == store.taken(Use("z", 5, 2, 9.0), NOW) == 0
    assert store.reserve([Use("a", 5), Use("z", 5, 2, 9.0)], NOW)
    assert (store.taken(Use("a", 5), NOW), store.taken(Use("z", 5, 1, 9.0), NOW)) == (1, 2)


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_given_back_once(store, window):
    """What is given back can be taken again; giving it back twice changes nothing."""
    uses = [Use("a", 2, 2, window), Use("b", 2, 1)]
    first = store.reserve(uses, NOW)
    store.release(first, uses)
    store.release(first, uses)
    assert [store.taken(use, NOW) for use in uses] == [0, 0]
    second = store.reserve(uses, NOW)
    store.release(first, uses)
    assert [store.taken(use, NOW) for use in uses] == [2, 1]
    store.release(second, uses)
    assert [store.taken(use, NOW) for use in uses] == [0, 0]


def test_a_token_of_nobody(store):
    """A token that the store never issued changes nothing."""
    store.reserve([Use("a", 2)], NOW)
    for token in ("", "x", "0" * 32, "\0", "\ud800", "é" * 32, "1" * 5000):
        store.release(token, [Use("a", 2), Use("b", 2)])
    assert store.taken(Use("a", 2), NOW) == 1


def test_a_token_of_another_store(place, opened):
    """Nor does a token of another store."""
    one, other = opened(place), opened(place) if place.kind == "memory" else None
    token = one.reserve([Use("a", 2)], NOW)
    if other is not None:
        other.reserve([Use("a", 2)], NOW)
        other.release(token, [Use("a", 2)])
        assert other.taken(Use("a", 2), NOW) == 1
    assert one.taken(Use("a", 2), NOW) == 1


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_what_is_given_back_is_what_was_taken(store, window):
    """The store knows the amounts; a caller who says others gets back no more."""
    token = store.reserve([Use("a", 9, 2, window), Use("b", 9, 3)], NOW)
    store.reserve([Use("a", 9, 4, window), Use("b", 9, 4)], NOW)
    store.release(token, [Use("c", 9)])
    store.release(token, [])
    store.release(token, [Use("a", 9, 6, window)])
    assert store.taken(Use("a", 9, 1, window), NOW) == 4
    assert store.taken(Use("b", 9), NOW) == 7
    store.release(token, [Use("b", 1, 1), Use("a", 9, 6, window)])
    assert store.taken(Use("a", 9, 1, window), NOW) == 4
    assert store.taken(Use("b", 9), NOW) == 4


def test_the_limit_of_the_call_counts(store):
    """A grant that was renewed with another limit is counted by that."""
    assert store.reserve([Use("a", 2, 2)], NOW)
    assert store.reserve([Use("a", 1)], NOW) is None
    assert store.reserve([Use("a", 2)], NOW) is None
    assert store.reserve([Use("a", 3)], NOW)


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_nothing_taken(store, window):
    """An amount of 0 takes nothing, moves no time, and must fit like any other."""
    nothing = Use("a", 1, 0, window)
    token = store.reserve([nothing], NOW + 1000)
    assert token
    store.release(token, [nothing])
    assert store.taken(nothing, NOW) == 0
    assert store.reserve([Use("a", 1, 1, window)], NOW)
    assert store.reserve([nothing], NOW)
    assert store.reserve([Use("a", 0, 0, window)], NOW) is None
    assert store.taken(nothing, NOW) == 1


def test_a_window_slides(store):
    """A use counts for the window's seconds, to the instant."""
    use = Use("a", 2, 1, 10.0)
    assert store.reserve([use], 100.0)
    assert store.reserve([use], 105.0)
    assert store.reserve([use], 109.9) is None
    assert store.taken(use, 109.9) == 2
    assert store.taken(use, 110.0) == 1
    assert store.reserve([use], 110.0)
    assert store.reserve([use], 114.9) is None
    assert store.reserve([use], 115.0)
    assert store.taken(use, 1000.0) == 0


def test_a_clock_that_is_set_back_frees_nothing(store):
    """Time does not run backwards for a key; for another one it is its own."""
    use = Use("a", 2, 1, 10.0)
    assert store.reserve([use], 100.0)
    assert store.reserve([use], 50.0)  # counts as made at 100
    assert store.reserve([use], 0.0) is None
    assert store.reserve([use], -1e300) is None
    assert store.reserve([use], 109.0) is None
    assert store.taken(use, 0.0) == 2
    assert store.reserve([use], 110.0)
    assert store.taken(use, 0.0) == 1
    assert store.reserve([Use("b", 1, 1, 10.0)], 0.0)
    assert store.reserve([Use("b", 1, 1, 10.0)], 10.0)


def test_a_refused_use_forgets_nothing(store):
    """What was refused at a later time does not make room at an earlier one."""
    assert store.reserve([Use("a", 1, 1, 10.0)], 100.0)
    assert store.reserve([Use("a", 1, 2, 10.0)], 1000.0) is None
    assert store.taken(Use("a", 1, 2, 10.0), 1000.0) == 0
    assert store.reserve([Use("a", 1, 1, 10.0)], 105.0) is None


def test_windows_of_several_lengths(store):
    """What a longer window needs is kept, once it was asked for."""
    long, short = Use("a", 100, 1, 100.0), Use("a", 100, 1, 1.0)
    assert store.reserve([long], 0.0)
    for at in range(1, 6):
        assert store.reserve([short], at * 10.0)
    assert store.taken(long, 50.0) == 6
    assert store.taken(short, 50.0) == 1
    assert store.taken(long, 100.0) == 5


def test_with_and_without_a_window(store):
    """The two kinds are counted apart."""
    assert store.reserve([Use("a", 1)], NOW)
    assert store.reserve([Use("a", 1, 1, 5.0)], NOW)
    assert store.reserve([Use("a", 1)], NOW + 9) is None
    assert store.reserve([Use("a", 1, 1, 5.0)], NOW + 9)


def test_a_forgotten_use_is_not_given_back(store):
    """Giving back what no window counts any more frees nothing."""
    use = Use("a", 1, 1, 10.0)
    old = store.reserve([use], 0.0)
    assert store.reserve([use], 10.0)
    store.release(old, [use])
    assert store.taken(use, 10.0) == 1


def test_a_window_too_short_for_the_clock(store):
    """At one instant the limit holds, however short the window is."""
    for window in (5e-324, 1e-12, 1e-7):
        use = Use(f"{window}", 1, 1, window)
        assert store.reserve([use], NOW)
        assert store.reserve([use], NOW) is None
        assert store.reserve([use], NOW - 1) is None
        assert store.reserve([use], NOW + 1)


def test_a_window_longer_than_time(store):
    """Nor does an endless window overflow."""
    use = Use("a", 1, 1, sys.float_info.max)
    assert store.taken(use, -sys.float_info.max) == 0
    assert store.reserve([use], -1e300)
    assert store.reserve([use], 0.0) is None
    assert store.reserve([use], 1e300) is None


def test_the_largest_amounts(store):
    """Sums of amounts near 2**63 neither wrap nor fail."""
    most = Use("a", MOST, MOST)
    token = store.reserve([most], NOW)
    assert token
    assert store.reserve([Use("a", MOST)], NOW) is None
    assert store.reserve([most], NOW) is None
    assert store.taken(most, NOW) == MOST
    store.release(token, [most])
    assert store.reserve([Use("a", MOST, MOST - 1)], NOW)
    for at in range(5):
        assert store.reserve([Use("b", MOST, MOST, 1.0 if at else 100.0)], float(at))
    assert store.taken(Use("b", MOST, 1, 100.0), 5.0) == 5 * MOST
    assert store.reserve([Use("b", MOST, 1, 100.0)], 5.0) is None


BAD_KEYS = ["", "a\0", "\0", "x" * 513, "é" * 513, "\ud800", b"a", None, 7]


UNCOUNTABLE = [
    [],
    [Use("a", 5), Use("a", 5)],
    *([Use(key, 5)] for key in BAD_KEYS),
    [Use("a", MOST + 1)],
    [Use("a", 5, MOST + 1)],
    [Use("a", 5, -1)],
    [Use("a", -1)],
    [Use("a", True)],
    [Use("a", 5, True)],
    [Use("a", 5.0)],
    [Use("a", 5, 1.0)],
    [Use("a", 5, 10**400)],
    *([Use("a", 5, 1, w)] for w in (float("nan"), float("inf"), -1.0, 10**400, "1", None)),
]


def test_what_cannot_be_counted(store):
    """What is out of bounds is refused before anything is done, after or before a good use."""
    good = Use("good", 5)
    for uses in UNCOUNTABLE:
        for asked in (uses, [good, *uses], [*uses, good]):
            if asked != [good]:
                with pytest.raises(ConfigurationError):
                    store.reserve(asked, NOW)
        if len(uses) == 1:
            with pytest.raises(ValueError):
                store.taken(uses[0], NOW)
            with pytest.raises(ValueError):
                store.release("0" * 32, uses)
    assert store.taken(good, NOW) == 0
    assert store.taken(Use("a", 5), NOW) == 0


def test_a_time_that_is_none(store):
    """A time must be a finite number."""
    for now in (float("nan"), float("inf"), -float("inf"), 10**400, "1", None, True):
        with pytest.raises(ConfigurationError):
            store.reserve([Use("a", 5)], now)
        with pytest.raises(ConfigurationError):
            store.taken(Use("a", 5), now)
    assert store.taken(Use("a", 5), NOW) == 0
    assert store.reserve([Use("a", 5)], 7)  # a whole number is one


HOSTILE = [
    "a", "A", "a ", " a", "é", "e\u0301", "%s", "%(a)s", "?", "{budgets}", "{", "'", '"', "\\",
    "\n", "'; DROP TABLE budgets; --", "\u202eabc", "😀" * 512, "ﬀ", "ff", "İ", "null", "1", "1.0",
    "\x01", "\x7f", "\ufeff", "a\u200b",
]  # fmt: skip


def test_keys_are_texts_and_nothing_else(store):
    """No two texts are one key, and none is anything to the database but a value."""
    for number, key in enumerate(HOSTILE, 1):
        assert store.reserve([Use(key, number, number)], NOW)
        assert store.reserve([Use(key, number)], NOW) is None
        store.post(key, reason=key)
    for number, key in enumerate(HOSTILE, 1):
        assert store.taken(Use(key, 1), NOW) == number
    assert store.notices() == frozenset(HOSTILE)
    assert {one.notice: one.reason for one in store.postings()} == {key: key for key in HOSTILE}


def test_notices(place, opened):
    """A notice stands until it is withdrawn; posted again, it keeps its reason and time."""
    times = iter([10.0, 20.0, 30.0, 40.0])
    store = opened(place, clock=lambda: next(times))
    assert store.notices() == frozenset()
    store.withdraw("stop:all")
    store.post("stop:all", reason="it sends too much")
    store.post("revoked:g1")
    store.post("stop:all", reason="again")
    assert store.notices() == {"stop:all", "revoked:g1"}
    assert [tuple(one) for one in store.postings()] == [
        ("stop:all", "it sends too much", 10.0),
        ("revoked:g1", "", 20.0),
    ]
    store.withdraw("stop:all")
    store.withdraw("stop:all")
    assert store.notices() == {"revoked:g1"}
    store.post("stop:all", reason="anew")
    assert store.postings()[-1] == ("stop:all", "anew", 40.0)


def test_notices_that_are_none(store):
    """A notice that another store could not hold is refused, and so is such a reason."""
    for text in BAD_KEYS:
        with pytest.raises(ConfigurationError):
            store.post(text)
        with pytest.raises(ConfigurationError):
            store.withdraw(text)
    for text in ("a\0", "\ud800", b"a", None, "x" * 4097):
        with pytest.raises(ConfigurationError):
            store.post("stop:all", reason=text)
    assert store.notices() == frozenset()


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_threads(store, window):
    """32 threads take exactly what there is, with some giving back what they took."""
    uses = [Use("a", 40, 1, window), Use("b", 100)]
    start, kept, problems = threading.Barrier(32), [], []

    def work(number):
        try:
            start.wait(10)
            for turn in range(4):
                token = store.reserve(uses if number % 2 else uses[::-1], NOW)
                if token and turn % 2 and number % 3 == 0:
                    store.release(token, uses)
                elif token:
                    kept.append(token)
                assert store.taken(uses[0], NOW) <= 40
        except BaseException as error:
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert problems == []
    while token := store.reserve(uses, NOW):
        kept.append(token)
    assert len(kept) == len(set(kept)) == 40
    assert store.taken(uses[0], NOW) == store.taken(uses[1], NOW) == 40


def test_a_finalizer_within(store):
    """Code that runs amid a call of its own thread gives back, and may do nothing else."""
    uses = [Use("a", 5), Use("b", 5, 1, 60.0)]
    token = store.reserve(uses, NOW)
    name = "_taken" if hasattr(store, "_held") else "_attempt"
    ours, refused = getattr(store, name), []

    def once(*args, **kwargs):
        setattr(store, name, ours)
        store.release(token, uses)
        try:
            store.reserve(uses, NOW)
        except StoreError as error:
            refused.append(str(error))
        return ours(*args, **kwargs)

    setattr(store, name, once)
    assert store.reserve(uses, NOW)
    assert "from within" in refused[0]
    assert [store.taken(use, NOW) for use in uses] == [1, 1]
