"""The model hub: two of its addresses, spoken to over plain HTTP.

The hub's own library no longer goes on with a download whose process was killed (it starts every
download under a name of its own), and it brings fifteen packages; what is needed of it is this.
Certificates are the host's own, so that a mirror inside a company works; proxies are taken from
the environment. Nothing is told to the hub but what is asked for.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from gatehouse.tool.errors import ProblemError

TOKEN_FILE = Path("/etc/gatehouse/secrets/providers/HF_TOKEN")
_SECONDS = 30
_CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5


class InterruptedDownloadError(Exception):
    """The connection broke; what came until then is good."""


class StalePartError(InterruptedDownloadError):
    """What is here cannot be gone on with."""


@dataclass(frozen=True)
class Remote:
    """A file of the hub. `tag` changes with its content; `sha256` is what the hub says it is."""

    url: str
    commit: str
    tag: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Card:
    """What the hub tells of a repository."""

    commit: str
    licence: str | None
    files: tuple[str, ...]


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, and keeps the token for the host that it was given for."""

    def redirect_request(  # noqa: PLR0913, PLR0917 - urllib's call
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and not _same_host(req.full_url, newurl):
            new.remove_header("Authorization")
        return new


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect to the caller: its headers say what the file is."""

    def redirect_request(self, *_: object) -> None:
        return None


class Hub:
    """A model hub at an address, with a token or none."""

    def __init__(self, url: str, token: str | None) -> None:
        """Hold them; nothing is asked yet."""
        self.url = url
        self._headers = {"User-Agent": "gatehouse", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def card(self, repository: str, revision: str) -> Card:
        """Ask for a repository's commit, licence and files."""
        path = f"/api/models/{repository}/revision/{quote(revision, safe='')}"
        request = Request(self.url + path, headers=self._headers)  # noqa: S310 - http(s), see _open
        with self._open(request, repository) as answer:
            try:
                found: dict[str, Any] = json.load(answer)
                files = tuple(str(each["rfilename"]) for each in found.get("siblings", ()))
                commit = str(found.get("sha") or revision)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ProblemError(f"{self.url}{path} gave no description of a model") from error
        licence = (found.get("cardData") or {}).get("license")
        if isinstance(licence, list):
            licence = ", ".join(map(str, licence))
        return Card(commit, licence, files)

    def remote(self, repository: str, revision: str, file: str) -> Remote:
        """Ask what a file is, without its content."""
        pinned = quote(revision, safe="")
        url = f"{self.url}/{repository}/resolve/{pinned}/{quote(file)}"
        for _ in range(_MOST_REDIRECTS):
            headers, next_url = self._head(url, f"{file} of {repository}")
            if next_url is None or "X-Linked-Etag" in headers or not _same_host(url, next_url):
                break
            # A repository that was renamed, or a small file.
            url = next_url
        tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/")
        tag = tag.strip('"')
        size = headers.get("X-Linked-Size") or (
            headers.get("Content-Length") if not next_url else None
        )
        commit = headers.get("X-Repo-Commit") or revision
        if commit != revision:
            url = f"{self.url}/{repository}/resolve/{quote(commit, safe='')}/{quote(file)}"
        return Remote(
            url,
            commit,
            f"{commit} {tag}",
            int(size) if size and size.isdigit() else None,
            tag if _SHA256.fullmatch(tag) else None,
        )

    def _head(self, url: str, what: str) -> tuple[Message, str | None]:
        request = Request(url, method="HEAD", headers=self._headers)  # noqa: S310 - http(s), see _open
        try:
            with self._open(request, what, _NoRedirects()) as answer:
                return answer.headers, None
        except HTTPError as error:  # only a redirect comes so far
            return error.headers, urljoin(url, error.headers.get("Location", ""))

    def read(self, remote: Remote, offset: int) -> tuple[bool, Iterator[bytes]]:
        """Read a file from `offset` on; tell whether the hub really began there, not at 0.

        The iterator raises `InterruptedDownloadError` when the connection breaks.
        """
        headers = self._headers | ({"Range": f"bytes={offset}-"} if offset else {})
        request = Request(remote.url, headers=headers)  # noqa: S310 - the same
        answer = self._open(request, remote.url)
        begins = answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        return bool(offset) and answer.status == 206 and begins, _chunks(answer)  # noqa: PLR2004

    def _open(
        self, request: Request, what: str, redirects: HTTPRedirectHandler | None = None
    ) -> HTTPResponse:
        if urlsplit(request.full_url).scheme not in {"http", "https"}:
            raise ProblemError(f"{self.url} is no address of a model hub (models_hub_url)")
        try:
            answer = build_opener(redirects or _Redirects()).open(request, timeout=_SECONDS)
        except HTTPError as error:
            if error.code in _REDIRECTS:
                raise
            raise self._refused(error, what) from None
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise InterruptedDownloadError(
                f"{urlsplit(request.full_url).netloc} cannot be reached ({reason}): is a proxy "
                "needed (HTTPS_PROXY), or a mirror (models_hub_url, or HF_ENDPOINT)? Without any, "
                "carry the files over (docs/airgap.md)"
            ) from error
        assert isinstance(answer, HTTPResponse)  # noqa: S101 - http and https only, see above
        return answer

    def _refused(self, error: HTTPError, what: str) -> Exception:
        host = urlsplit(error.url or self.url).netloc
        if error.code in {401, 403}:
            return ProblemError(
                f"{host} refuses {what} ({error.code}): it is spelled wrongly, or private, or its "
                "terms have to be accepted on its page first; then give a token in HF_TOKEN or "
                f"in {TOKEN_FILE}"
            )
        if error.code == 404:  # noqa: PLR2004
            return ProblemError(
                f"{host} has no {what} ({error.headers.get('X-Error-Code') or 404}): correct the "
                "engine's repository, revision or file"
            )
        if error.code == 416:  # noqa: PLR2004
            return StalePartError("the part that is here is no part of the file")
        if error.code == 429 or error.code >= 500:  # noqa: PLR2004
            return InterruptedDownloadError(f"{host} is overloaded ({error.code}): try again later")
        return ProblemError(f"{host} refuses {what}: {error.code} {error.reason}")


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    with answer:
        while True:
            try:
                chunk = answer.read1(_CHUNK_BYTES)
            except (OSError, HTTPException) as error:
                raise InterruptedDownloadError(f"the connection broke: {error}") from error
            if not chunk:
                if answer.length:
                    raise InterruptedDownloadError("the connection ended too early")
                return
            yield chunk


def _same_host(one: str, other: str) -> bool:
    return urlsplit(one)[:2] == urlsplit(other)[:2]
