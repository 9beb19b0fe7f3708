"""A bucket of an S3-compatible store, as a place to publish a log.

====================  =====================================================================
nothing may be there  ``PutObject`` with ``If-None-Match: *``
still the same        ``PutObject`` with ``If-Match: <ETag that GetObject returned>``
tiles and bundles     ``application/octet-stream``, ``max-age=31536000, immutable``
checkpoint            ``text/plain; charset=utf-8``, ``no-cache``
permissions           ``GetObject``, ``PutObject``, ``ListBucket`` (without it a missing object
                      is "forbidden", and not "not there"); to prune also ``DeleteObject``
====================  =====================================================================

1. Every write has a condition, so every request may be sent twice: what fails, times out
   or answers 408, 409, 429 or 5xx is tried again. If the answer to a write got lost, the
   second one finds the condition unmet, and whoever asked looks what is there.
2. Every upload carries its MD5, which the store compares: S3's own protection against
   bits that change on the way. (What is *in* the files is protected by the log's tree.)
3. Endpoints are ``https``, or ``http`` for this machine's loopback interface: entries are
   private until whoever owns the bucket says otherwise.
4. Credentials come from the environment, the AWS files or the machine's role, as for any
   AWS tool, never from us; so does the endpoint, unless it is given.
5. What a server says is not repeated in errors, but for its status and an error code of
   letters.

The client is boto3: it takes credentials from wherever AWS tools take them (single
sign-on, profiles, roles), has both conditions, and is kept by those who make S3. It is
loaded when a bucket is opened: ``pip install 'checkrein[s3]'``.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from checkrein.errors import ConfigurationError, LogError
from checkrein.log.destinations import CHECKPOINT, Stored
from checkrein.log.witness import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

_PLACE: Final = re.compile(
    r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*)/?", re.ASCII
)
_CODE: Final = re.compile(r"[A-Za-z]{1,60}", re.ASCII)
_AGAIN: Final = frozenset({408, 409, 425, 429})
_AGAIN_CODES: Final = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown"})


class _Failed(Exception):
    """A request that may be sent again."""


class Bucket:
    """Objects whose names begin with a prefix; see `checkrein.log.destinations.Destination`.

    Args:
        client: a boto3 client for S3.
        bucket: the bucket's name.
        prefix: ``""``, or a prefix that ends in ``/``.
        attempts: how often a request is sent.
        pause: the seconds before the second attempt; they grow, at random, to 5 at most.
    """

    def __init__(
        self, client: Any, bucket: str, prefix: str, *, attempts: int = 6, pause: float = 0.2
    ) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._refused, self._lost = _exceptions()
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=pause, max=5),
            retry=retry_if_exception_type(_Failed),
            reraise=True,
        )

    @classmethod
    def open(
        cls,
        text: str,
        *,
        endpoint: str = "",
        workers: int = 8,
        timeout: float = 30.0,
        attempts: int = 6,
        pause: float = 0.2,
    ) -> Bucket:
        """Return the bucket at ``s3://bucket/prefix``.

        Args:
            text: where; lower-case letters, digits, ``.`` and ``-`` for the bucket.
            endpoint: the URL of the store; without, as the environment says.
            workers: how many connections are kept.
            timeout: for how many seconds to connect, and to wait for each packet.
            attempts: how often a request is sent.
            pause: the seconds before the second attempt.

        Raises:
            ConfigurationError: *text* is no such place, boto3 is not installed, or the AWS
                configuration cannot be used.
        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ConfigurationError(
                "the bucket is not s3://bucket/prefix, of letters, digits, '.', '_', '=' and '-'; "
                "credentials belong into the environment"
            )
        client = _connect(endpoint, workers, timeout)
        prefix = f"{found[2]}/".removeprefix("/")
        return cls(client, found[1], prefix, attempts=attempts, pause=pause)

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @contextmanager
    def held(self, source: Path) -> Generator[None]:
        """Keep nobody out: the conditions tell who comes first. Close connections at the end."""
        try:
            yield
        finally:
            self._client.close()

    def read(self, name: str, limit: int) -> Stored | None:
        """Return an object; see `Destination`."""

        def get() -> Stored:
            answer = self._client.get_object(**self._at(name))
            with answer["Body"] as body:
                data = body.read(limit + 1)
            if len(data) < min(answer.get("ContentLength", 0), limit + 1):
                raise _Failed("half an answer")
            return Stored(data, answer.get("ETag", ""))

        found: Stored | None = self._ask(get)
        if found is not None and not found.tag:
            raise ConfigurationError(f"the store of {self} has no ETags: {_NEEDED}")
        return found

    def write(self, name: str, data: bytes, *, replacing: str | None = None) -> bool:
        """Write an object; see `Destination`."""
        kind, caching = "application/octet-stream", "max-age=31536000, immutable"
        if name == CHECKPOINT:
            kind, caching = "text/plain; charset=utf-8", "no-cache"
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing}
        put = partial(
            self._client.put_object,
            Body=data,
            ContentMD5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            ContentType=kind,
            CacheControl=caching,
            **condition,
            **self._at(name),
        )
        return self._ask(put) is not None

    def has(self, name: str) -> bool:
        """Tell whether there is such an object."""
        return self._ask(partial(self._client.head_object, **self._at(name))) is not None

    def names(self) -> Iterator[str]:
        """Yield the names of all tiles and bundles; a thousand a request."""
        more: dict[str, str] = {}
        while True:
            ask = partial(
                self._client.list_objects_v2,
                Bucket=self._bucket,
                Prefix=f"{self._prefix}tile/",
                **more,
            )
            page = self._ask(ask) or {}
            for one in page.get("Contents", ()):
                yield one.get("Key", "").removeprefix(self._prefix)
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            more = {"ContinuationToken": token}

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        self._ask(partial(self._client.delete_object, **self._at(name)))

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def _ask(self, request: Callable[[], Any]) -> Any:
        """Return what the store answers, None if there is no such thing or it is not so."""
        try:
            return self._retrying.copy()(self._once, request)
        except _Failed as error:
            raise LogError(f"the store of {self} cannot be reached, or fails ({error})") from error

    def _once(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except self._refused as error:
            return self._judge(getattr(error, "response", {}))
        except self._lost as error:
            raise _Failed(type(error).__name__) from error
        except Exception as error:
            if type(error).__module__.startswith("boto"):  # no credentials, for example
                raise ConfigurationError(
                    f"the store of {self} cannot be asked ({type(error).__name__})"
                ) from error
            raise

    def _judge(self, answer: Mapping[str, Any]) -> None:
        """Return if the answer is a plain no.

        Raises:
            _Failed: it may be another one next time.
            ConfigurationError: it will not.
        """
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(answer.get("Error", {}).get("Code", ""))
        code = code if _CODE.fullmatch(code) else ""
        said = f"{status} {code}".rstrip()
        if status == 412 or (status == 404 and code != "NoSuchBucket"):
            return
        if status == 501:
            raise ConfigurationError(f"the store of {self} answers {said}: {_NEEDED}")
        if status >= 500 or status in _AGAIN or code in _AGAIN_CODES:
            raise _Failed(said)
        raise ConfigurationError(
            f"the store of {self} refuses ({said}): look at the bucket's name, the endpoint, the "
            "credentials and what they permit (GetObject, PutObject, ListBucket, DeleteObject)"
        )


_NEEDED: Final = (
    "a log needs a store that honours If-None-Match and If-Match when an object is written"
)


def _connect(endpoint: str, workers: int, timeout: float) -> Any:
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"boto3", "botocore"}:
            raise
        raise ConfigurationError(
            "publishing to a bucket needs boto3: pip install 'checkrein[s3]'"
        ) from None
    settings = config.Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        max_pool_connections=workers,
        retries={"total_max_attempts": 1},  # we try again ourselves
        # Newer checksums are sent in a form that only some stores read; see rule 2.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=endpoint or None, config=settings
        )
        parts = urlsplit(client.meta.endpoint_url)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        secure = plain or parts.scheme == "https"
    except Exception as error:
        raise ConfigurationError(
            f"the client for S3 cannot be set up ({type(error).__name__}): look at --endpoint and "
            "the AWS environment variables and files"
        ) from error
    if not secure or parts.username or parts.password:
        raise ConfigurationError(
            "the endpoint is not https://host[:port]; http is for this machine's loopback "
            "interface only, and credentials belong into the environment"
        )
    return client


def _exceptions() -> tuple[type[BaseException], tuple[type[BaseException], ...]]:
    """Return the exception for an answer that is a no, and those for no whole answer."""
    known = import_module("botocore.exceptions")
    lost = (
        known.HTTPClientError,
        known.ConnectionError,
        known.IncompleteReadError,
        import_module("botocore.parsers").ResponseParserError,
        import_module("urllib3.exceptions").HTTPError,
        http.client.HTTPException,
        OSError,
    )
    return known.ClientError, lost
