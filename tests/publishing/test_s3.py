"""What is particular about buckets: lost answers, deaths on the way, and stores that do not do."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log.destinations import open_destination
from checkrein.log.publishing import publish
from checkrein.log.tiles import tile_path
from publishing.proxy import Careless, served
from publishing.reader import read
from publishing.seaweed import BUCKET

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: run the publishing session")


def send(grown, size, destination, **options):
    return publish(grown.published[size], destination, vkey=grown.vkey, **options)


pytestmark = pytest.mark.service("s3")


def test_what_a_web_server_is_told(objects, grown):
    """Tiles may be cached for ever, the checkpoint is asked for each time."""
    send(grown, 300, objects.open())

    def told(name):
        key = f"{objects.prefix}/{name}"
        answer = objects.client.head_object(Bucket=BUCKET, Key=key)
        return answer["ContentType"], answer["CacheControl"]

    tile = ("application/octet-stream", "max-age=31536000, immutable")
    assert told("tile/0/000") == told("tile/entries/001.p/44") == tile
    assert told("checkpoint") == ("text/plain; charset=utf-8", "no-cache")


def test_a_bucket_without_a_prefix(objects, grown):
    """A log may lie at the top of a bucket; others in the same bucket are left alone."""
    bucket = f"top-{random.getrandbits(64):x}"
    objects.client.create_bucket(Bucket=bucket)
    place = open_destination(f"s3://{bucket}", endpoint=objects.url)
    assert send(grown, 300, place, prune=True).size == 300
    assert objects.client.head_object(Bucket=bucket, Key="checkpoint")


def test_the_endpoint_from_the_environment(objects, grown, aws):
    """Without an endpoint that is given, the one that every AWS tool takes is used."""
    aws.setenv("AWS_ENDPOINT_URL_S3", objects.url)
    assert send(grown, 5, open_destination(objects.text)).size == 5
    assert read(objects.get, grown.vkey) == 5


def test_more_objects_than_one_page_lists(objects):
    """A listing of more than a thousand objects is followed to its end."""
    names = [tile_path(0, number, 7) for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: objects.put(name, b"x"), names))
    assert sorted(objects.open().names()) == sorted(names)


# -- a network that fails ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_at_random(objects, proxy, grown, seed):
    """A third of all requests fail, before or after they were carried out: all arrives."""
    chance, lock = random.Random(seed), threading.Lock()
    seen = set()

    def fault(method, path):
        with lock:
            found = chance.choice(["500", "gone", "late", "cut", "half", *[None] * 10])
            seen.add(found)
            return found

    proxy.fault = fault
    for size in (3, 300, 1000):
        done = send(grown, size, objects.open(proxy.url, attempts=12), prune=True)
        assert done.size == size
        assert read(objects.get, grown.vkey) == size
    assert {"500", "gone", "late", "cut", "half"} <= seen


@pytest.mark.parametrize("fault", ["500", "gone", "late", "cut"])
@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000.p/5"])
def test_one_answer_is_lost(objects, proxy, grown, name, fault):
    """The write of one file fails, or its answer gets lost: it is there once, and all is well."""
    times = iter([fault])
    proxy.fault = lambda method, path: (
        next(times, None) if method == "PUT" and path.endswith(name) else None
    )
    done = send(grown, 5, objects.open(proxy.url))
    assert done.size == 5
    assert next(times, "used") == "used"
    assert read(objects.get, grown.vkey) == 5


@pytest.mark.parametrize("fault", ["500", "gone", "late", "cut"])
def test_a_store_that_is_down(objects, proxy, grown, fault):
    """If a file cannot be sent the error is ours, and the old head stays, until it can be."""
    send(grown, 300, objects.open())
    proxy.fault = lambda method, path: fault if method == "PUT" and "tile/1/" in path else None
    with pytest.raises(LogError, match="cannot be reached, or fails"):
        send(grown, 600, objects.open(proxy.url, attempts=2))
    assert read(objects.get, grown.vkey) == 300
    assert send(grown, 600, objects.open()).size == 600
    assert read(objects.get, grown.vkey) == 600


def test_nobody_listens(aws, grown):
    """No store at all is an error of the log, not one of a library below."""
    place = open_destination("s3://logs/x", endpoint="http://127.0.0.1:9")
    place._retrying.stop = lambda state: True
    with pytest.raises(LogError, match="cannot be reached"):
        send(grown, 5, place)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("fault", ["gone", "cut"], ids=["before", "after"])
@pytest.mark.parametrize("death", [1, 2, 5, 9, 10])
def test_killed_on_the_way(objects, proxy, grown, death, fault):
    """Killed at its nth write, before or after that was carried out; the next one goes on."""
    send(grown, 3, objects.open())
    lock, running, count = threading.Lock(), [], iter(range(1, 100))

    def kill(method, path):
        with lock:
            if running[0].poll() is None and method == "PUT" and next(count) == death:
                running[0].send_signal(signal.SIGKILL)
                running[0].wait()
                return fault
            return None if running[0].poll() is None else "gone"

    proxy.fault = kill
    program = (
        "import sys\nfrom checkrein.log.publishing import publish\n"
        "from checkrein.log.destinations import open_destination\n"
        "directory, place, url, vkey = sys.argv[1:]\nsys.stdin.read()\n"
        "publish(directory, open_destination(place, endpoint=url), vkey=vkey)\n"
    )
    arguments = [grown.published[600], objects.text, proxy.url, grown.vkey]
    child = subprocess.Popen([sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE)
    running.append(child)
    child.communicate(b"")
    assert child.returncode == -signal.SIGKILL
    assert fault != "cut" or proxy.carried_out.wait(30)
    # The tenth write is the checkpoint's: seven files, and two that try the conditions.
    arrived = death == 10 and fault == "cut"
    assert read(objects.get, grown.vkey) == (600 if arrived else 3)
    done = send(grown, 600, objects.open())
    assert done.changed == (not arrived)
    assert read(objects.get, grown.vkey) == 600


def test_somebody_is_quicker(objects, proxy, grown):
    """Another publisher writes the checkpoint just before this one: it looks again, and goes on."""
    quicker = iter([300, 600])

    def fault(method, path):
        size = next(quicker, None) if method == "PUT" and path.endswith("checkpoint") else None
        if size:
            send(grown, size, objects.open())

    proxy.fault = fault
    done = send(grown, 1000, objects.open(proxy.url))
    assert (done.size, done.changed) == (1000, True)
    assert read(objects.get, grown.vkey) == 1000


def test_somebody_is_always_quicker(objects, proxy, grown):
    """A checkpoint that changes all the time is an error in the end."""
    send(grown, 3, objects.open())
    heads = [(grown.published[size] / "checkpoint").read_bytes() for size in (3, 5)]

    def fault(method, path):
        if method == "PUT" and path.endswith("checkpoint"):
            there = objects.get("checkpoint")
            objects.put("checkpoint", heads[there == heads[0]])

    proxy.fault = fault
    with pytest.raises(LogError, match="change the checkpoint"):
        send(grown, 300, objects.open(proxy.url))
    assert objects.get("checkpoint") in heads


def test_a_fork_appears_meanwhile(objects, proxy, grown):
    """Between reading and writing the checkpoint somebody puts a stranger's there: refused."""

    def fault(method, path):
        if method == "PUT" and path.endswith("checkpoint"):
            objects.put("checkpoint", b"mine\n")

    proxy.fault = fault
    with pytest.raises(TamperedError, match="is not of this log"):
        send(grown, 300, objects.open(proxy.url))
    assert objects.get("checkpoint") == b"mine\n"


# -- stores that do not do, and people who set them up -------------------------------------


@pytest.mark.parametrize("honours", ["", "none", "match"])
def test_a_store_that_ignores_conditions(aws, grown, honours):
    """A store that ignores either condition is found out with the first file, and refused."""
    with served(Careless, objects={}, honours=honours) as store:
        place = open_destination("s3://logs/x", endpoint=store.url)
        with pytest.raises(ConfigurationError, match="ignores If-None-Match or If-Match"):
            send(grown, 300, place)
        assert [*store.objects] == ["/logs/x/tile/entries/000"]


def test_a_store_without_conditions(aws, grown):
    """A store that says that it has none is named as the reason."""
    with served(Careless, objects={}, honours="501") as store:
        place = open_destination("s3://logs/x", endpoint=store.url)
        with pytest.raises(ConfigurationError, match="honours If-None-Match and If-Match"):
            send(grown, 300, place)
        assert not store.objects


def test_a_store_that_honours_both(aws, grown):
    """The same store passes once it honours both: it is the conditions that were looked at."""
    with served(Careless, objects={}, honours="none match") as store:
        send(grown, 300, open_destination("s3://logs/x", endpoint=store.url))
        fetch = lambda name: store.objects.get(f"/logs/x/{name}")
        assert read(fetch, grown.vkey) == 300


def test_wrong_credentials(objects, grown, aws):
    """A refusal says what to look at, and holds neither credentials nor the server's words."""
    aws.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(ConfigurationError, match="refuses") as raised:
        send(grown, 5, objects.open())
    assert "another-secret" not in str(raised.value)
    assert "SignatureDoesNotMatch" in str(raised.value)


def test_no_credentials(objects, grown, aws):
    """Without credentials nothing is asked, and the error says so."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match="NoCredentialsError"):
        send(grown, 5, objects.open())


def test_no_such_bucket(objects, grown):
    """A bucket that there is not is not taken for an empty one."""
    place = open_destination("s3://there-is-none", endpoint=objects.url)
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        send(grown, 5, place)


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///x", "s3://A/x", "s3://key:secret@logs/x", "s3://logs/../x", "s3://logs//x"]
    + ["s3://logs/x?y", "s3://logs/x y", "s3://logs/\x1b[31m", "s3://logs/.hidden"],
)
def test_places_that_are_no_buckets(aws, text):
    """A place that is misspelt, or that holds credentials, is refused and not repeated."""
    with pytest.raises(ConfigurationError, match="the bucket is not") as raised:
        open_destination(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://s3.example.com", "ftp://127.0.0.1", "nonsense", "https://a:b@s3.example.com"]
)
def test_endpoints_that_are_refused(aws, url):
    """Entries are not sent in the clear to another machine."""
    with pytest.raises(ConfigurationError):
        open_destination("s3://logs/x", endpoint=url)


def test_an_endpoint_in_the_clear_from_the_environment(aws):
    """The rule holds for the endpoint that the environment names, too."""
    aws.setenv("AWS_ENDPOINT_URL", "http://s3.example.com")
    with pytest.raises(ConfigurationError, match="is not https"):
        open_destination("s3://logs/x")


def test_a_profile_that_there_is_not(aws):
    """What boto3 does not find in its files is a configuration error."""
    aws.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="ProfileNotFound"):
        open_destination("s3://logs/x")
