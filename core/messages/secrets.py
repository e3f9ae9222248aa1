"""Hide passwords and tokens: those that are known from a URI or the environment, and what looks
like one.

Secrets belong in the environment. If one is in a recipe all the same, it is known as soon as the
recipe is read. All that a run prints or writes goes through `redact`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
"""Stands where a secret stood."""

NAMES = r"(?:token|passw(?:or)?d|passphrase|secret|(?:api|access|secret)[_-]?key)"
"""The end of a secret's name, in the environment and among a tracker's fields."""
QUERY = rf"{NAMES}|(?<=[?&;#])key|pwd|credentials?|sig|signature|auth|odbc_connect"
"""The end of a secret's name in the query of a URI. The environment's PWD is no secret."""
SHORT, MIXED = 8, 5
"""The least length of a secret that is hidden everywhere: shorter ones may be a plain word or a
number, and are hidden in URIs only. MIXED is the least length if it has letters and others."""

_known: set[str] = set()
_addresses: dict[str, str] = {}

SCHEME = r"(?<![a-z])[a-z][\w+.-]{0,40}://"
"""Its repetition is bounded, as in all these patterns: their cost must be linear in the text."""

_SHAPES = (
    # user:password@, whatever the password holds, and token@ of web addresses
    (
        rf"({SCHEME})[^\s/:@'\"<>]{{0,1000}}:(?!\d+(?:[/?#]|$))[^\s'\"<>]{{0,1000}}@",
        rf"\1{HIDDEN}@",
    ),
    (rf"({SCHEME})[^\s/@'\"<>]{{0,1000}}:[^\s/'\"<>]{{0,1000}}@", rf"\1{HIDDEN}@"),
    (r"((?:https?|s?ftp)://)[^\s/?#'\"<>]{0,1000}@", rf"\1{HIDDEN}@"),
    # named values in a query or a fragment
    (rf"([?&;#][\w.-]*(?:{QUERY})=)[^&\s'\"<>;#]+", rf"\1{HIDDEN}"),
    # a database's settings, and the header of a request
    (
        r"\b((?:password|passwd|pwd|secret|api_key|access_token|auth_token)\s?=\s?)(?!\*)[^\s&;,]+",
        rf"\1{HIDDEN}",
    ),
    (
        r"(authorization['\"]?\s*[:=]\s*['\"]?(?>(?:(?:basic|bearer)\s+)?))(?!\*)[^\s'\"]+",
        rf"\1{HIDDEN}",
    ),
)
_PATTERNS = [(re.compile(shape, re.IGNORECASE), instead) for shape, instead in _SHAPES]
_NAMED = re.compile(rf"{NAMES}$", re.IGNORECASE)


def hide(uri: str) -> str:
    """A URI without its user's password or token, and without those in its query; the same if it
    has none."""
    scheme, separator, rest = uri.partition("://")
    if not separator or any(each.isspace() for each in scheme):
        return uri
    user, at, place = rest.rpartition("@")
    bare = scheme.lower().startswith(("http", "ftp", "sftp")) and "/" not in user
    secret = ":" in user or bare
    if at and secret and not rest.startswith("/"):
        rest = f"{HIDDEN}@{place}"
    return shaped(f"{scheme}://{rest}")


def learn(uri: str) -> None:
    """Know the secrets of a URI, to hide them wherever they occur: as they are, quoted or
    encoded."""
    hidden = hide(uri)
    if hidden == uri:
        return
    _addresses[uri] = hidden
    scheme, _, rest = uri.partition("://")
    user, at, _ = rest.rpartition("@")
    if at and hidden.startswith(f"{scheme}://{HIDDEN}@"):
        name, colon, password = user.partition(":")
        keep(password if colon else name)
        for pair in {user, unquote(user)}:
            _known.add(base64.b64encode(pair.encode()).decode())
    for secret in re.findall(rf"[?&;#][\w.-]*(?:{QUERY})=([^&;#]+)", rest, re.IGNORECASE):
        keep(secret)


def keep(secret: str) -> None:
    """Know one secret in all the ways in which it may be written."""
    for plain in {secret, unquote(secret)}:
        _known.update(
            form for form in (plain, quote(plain, safe=""), quote_plus(plain)) if distinctive(form)
        )


def distinctive(secret: str) -> bool:
    """Whether a secret that stands alone can be distinguished from plain words and numbers."""
    mixed = any(map(str.isalpha, secret)) and not secret.isalpha()
    return HIDDEN not in secret and (len(secret) >= SHORT or (len(secret) >= MIXED and mixed))


def learn_environment() -> None:
    """Know the passwords and tokens in the environment, by the names of their variables."""
    for name, value in os.environ.items():
        if "://" in value:
            learn(value)
        elif _NAMED.search(name):
            keep(value)


def redact(text: str) -> str:
    """The text with all secrets hidden, those that are known and those that look like one."""
    learn_environment()
    for address in sorted(_addresses, key=len, reverse=True):
        text = text.replace(address, _addresses[address])
    for secret in sorted(_known, key=len, reverse=True):
        if secret in text:
            word = r"(?<!\w){}(?!\w)" if secret.isalpha() else "{}"
            text = re.sub(word.format(re.escape(secret)), HIDDEN, text)
    return shaped(text)


def shaped(text: str) -> str:
    """The text with everything hidden that looks like a secret."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def redacted(value: Any) -> Any:
    """JSON with the secrets in its texts hidden; keys stay as they are."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(entry) for key, entry in value.items()}
    return [redacted(entry) for entry in value] if isinstance(value, list | tuple) else value


def without_secrets(spec: Any, name: str = "") -> Any:
    """A component's spec with its secrets hidden: those in URIs, and fields with names such as
    `password`."""
    if isinstance(spec, str):
        return HIDDEN if spec and _NAMED.search(name) else hide(spec)
    if isinstance(spec, Mapping):
        return {key: without_secrets(entry, str(key)) for key, entry in spec.items()}
    return (
        [without_secrets(entry, name) for entry in spec] if isinstance(spec, list | tuple) else spec
    )


def secret_places(spec: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places in a recipe's data of URIs with secrets."""
    if isinstance(spec, str):
        if hide(spec) != spec:
            yield at
    elif isinstance(spec, Mapping):
        for key, entry in spec.items():
            yield from secret_places(entry, (*at, key))
    elif isinstance(spec, list | tuple):
        for index, entry in enumerate(spec):
            yield from secret_places(entry, (*at, index))
