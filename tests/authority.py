"""A throw-away certificate authority."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme


class Authority:
    """A throw-away certificate authority that clients may be told to trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)

    def serve(self, name: str, **validity: Any) -> ssl.SSLContext:
        """Make the context of a server with a certificate for the name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **validity).configure_cert(context)
        return context

    def serve_self_signed(self) -> ssl.SSLContext:
        """Make the context of a server that vouches for itself."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = self._folder / "self.pem"
        path.write_bytes(self._ca.private_key_pem.bytes() + self._ca.cert_pem.bytes())
        context.load_cert_chain(path)
        return context
