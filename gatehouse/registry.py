"""What an image registry says that a reference means (the OCI distribution API, read only)."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gatehouse.images import PLATFORMS, Locked, Platform

_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_DOCKER_HUB = "docker.io"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class UnresolvedError(Exception):
    """Nobody said what the reference means; the message says why."""


@dataclass(frozen=True)
class Reference:
    """An image's name, taken apart as Docker does it."""

    host: str
    repository: str
    tag: str

    @property
    def api(self) -> str:
        """Where the registry answers: over HTTPS, but for one on this machine."""
        local = self.host.partition(":")[0] in {"localhost", "127.0.0.1"}
        host = "registry-1.docker.io" if self.host == _DOCKER_HUB else self.host
        return f"{'http' if local else 'https'}://{host}/v2/{self.repository}"


def parse(reference: str) -> Reference:
    """Take a reference apart; a digest in it is passed over."""
    name = reference.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = _DOCKER_HUB, name if slash else f"library/{name}"
    repository, _, tag = path.partition(":")
    return Reference(host, repository, tag or "latest")


class Registries:
    """Asks registries; one that could not be reached is not asked again."""

    def __init__(self, docker_config: Path = Path("~/.docker/config.json")) -> None:
        """`docker_config`: where `docker login` has put what private registries want."""
        timeout = httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.Client(timeout=timeout, follow_redirects=True)
        self._config = docker_config.expanduser()
        self._unreachable: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    def resolve(self, reference: str) -> Locked:
        """Give the digests of a reference; raises `UnresolvedError`."""
        image = parse(reference)
        if image.host in self._unreachable:
            raise UnresolvedError(self._unreachable[image.host])
        try:
            return self._resolve(image)
        except httpx.TransportError as error:
            words = f"{image.host} cannot be reached ({str(error) or type(error).__name__})"
            self._unreachable[image.host] = words
            raise UnresolvedError(words) from None
        except (ValueError, KeyError, TypeError, httpx.HTTPError) as error:
            raise UnresolvedError(f"{image.host} gave no manifest of ours: {error}") from None

    def _resolve(self, image: Reference) -> Locked:
        index, digest = self._manifest(image, image.tag)
        if index.get("mediaType") in _INDEXES or "manifests" in index:
            platforms = {}
            for each in index["manifests"]:
                named = each.get("platform", {})
                platform = f"{named.get('os')}/{named.get('architecture')}"
                if platform in PLATFORMS:
                    manifest, seen = self._manifest(image, each["digest"])
                    platforms[platform] = Platform(seen, manifest["config"]["digest"])
        else:
            config = index["config"]["digest"]
            about = json.loads(self._get(image, f"blobs/{config}", ()).content)
            platform = f"{about['os']}/{about['architecture']}"
            platforms = {platform: Platform(digest, config)}
        if not platforms:
            raise UnresolvedError(f"it is for none of {', '.join(PLATFORMS)}")
        return Locked(digest, platforms)

    def _manifest(self, image: Reference, tag: str) -> tuple[dict[str, Any], str]:
        """Give a manifest and its digest, computed from what came."""
        answer = self._get(image, f"manifests/{tag}", (*_INDEXES, *_MANIFESTS))
        digest = "sha256:" + hashlib.sha256(answer.content).hexdigest()
        said = answer.headers.get("Docker-Content-Digest", digest)
        if said != digest or (tag.startswith("sha256:") and tag != digest):
            raise UnresolvedError(
                f"{image.host} gave a manifest of {image.repository} that is not what its digest "
                f"says: {digest}, not {tag if tag.startswith('sha256:') else said}"
            )
        found = json.loads(answer.content)
        if not isinstance(found, dict):
            raise UnresolvedError(f"{image.host} gave no manifest of {image.repository}")
        return found, digest

    def _get(self, image: Reference, path: str, accept: tuple[str, ...]) -> httpx.Response:
        url, token = f"{image.api}/{path}", self._tokens.get(image.api)
        headers = {"Accept": ", ".join(accept)} if accept else {}
        given = {"Authorization": token} if token else {}
        answer = self._client.get(url, headers=headers | given)
        if answer.status_code == _UNAUTHORIZED:
            token = self._authorization(image, answer.headers.get("WWW-Authenticate", ""))
            self._tokens[image.api] = token
            answer = self._client.get(url, headers=headers | {"Authorization": token})
        if answer.status_code == _UNAUTHORIZED:
            raise UnresolvedError(f"{image.host} lets nobody in: docker login {image.host}")
        if answer.status_code == _NOT_FOUND:
            raise UnresolvedError(f"{image.host} has no {image.repository}:{image.tag}")
        answer.raise_for_status()
        return answer

    def _authorization(self, image: Reference, challenge: str) -> str:
        """Get what the registry asks for: a token, for nobody in particular or for its user."""
        login = self._login(image.host)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not login:
                raise UnresolvedError(f"{image.host} wants a user: docker login {image.host}")
            return login
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.pop("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise UnresolvedError(f"{image.host} asks for {challenge or 'nothing that is known'}")
        asked.setdefault("scope", f"repository:{image.repository}:pull")
        # A password goes nowhere in the clear, whatever the registry says.
        known = {"Authorization": login} if login and realm.startswith("https://") else {}
        answer = self._client.get(realm, params=asked, headers=known)
        answer.raise_for_status()
        found = answer.json()
        return f"Bearer {found.get('token') or found['access_token']}"

    def _login(self, host: str) -> str | None:
        """Give the Basic header that `docker login` has kept for a registry, if any."""
        try:
            auths = json.loads(self._config.read_text()).get("auths", {})
        except (OSError, ValueError):
            return None
        name = "https://index.docker.io/v1/" if host == _DOCKER_HUB else host
        kept = auths.get(name, {}).get("auth")
        if not kept or ":" not in base64.b64decode(kept).decode():
            return None
        return f"Basic {kept}"
