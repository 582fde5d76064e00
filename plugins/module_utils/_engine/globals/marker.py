# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the target itself remembers of globals: the comment of a role of ours that nobody can log in as.

A login without superuser cannot read the verifiers on the target, so without a memory each run would set each password again; and the
memberships that the administrator got for the time of the migration must be known at its end. There is no other place in a cluster
that a role with CREATEROLE can always write to. Verifiers are kept as an HMAC under the passwords of the two endpoints, because
everybody can read comments.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json

from ..postgres.identifiers import PREFIX
from ..spec import Endpoint

MARKER = f"{PREFIX}globals"
"""Name of the role."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """``admin``: roles that were granted to the administrator by us; ``passwords``: role to fingerprint of the verifier that it got."""

    admin: frozenset[str] = frozenset()
    passwords: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_comment(self) -> str:
        """The comment's text."""
        return json.dumps({"version": 1, "admin": sorted(self.admin), "passwords": self.passwords}, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_comment(cls, comment: str | None) -> Marker:
        """What a comment says; empty where it says nothing."""
        try:
            data = json.loads(comment or "{}")
            return cls(frozenset(map(str, data.get("admin", ()))), {str(k): str(v) for k, v in dict(data.get("passwords", {})).items()})
        except (ValueError, TypeError, AttributeError):
            return cls()


def is_verifier(text: str) -> bool:
    """Is ``text`` what PostgreSQL stores for a password, and not a password?"""
    return text.startswith("SCRAM-SHA-256$") or (text.startswith("md5") and len(text) == 35)


def fingerprint(source: Endpoint, target: Endpoint, verifier: str) -> str:
    """16 hexadecimal digits that change with the verifier (or the password in clear); empty where none can be kept safely: what has no
    salt worth the name could without a secret key be guessed from its fingerprint."""
    secret = f"{source.password}\x00{target.password}"
    if secret == "\x00" and not verifier.startswith("SCRAM-SHA-256$"):
        return ""
    return hmac.new(hashlib.sha256(secret.encode()).digest(), verifier.encode(), hashlib.sha256).hexdigest()[:16]
