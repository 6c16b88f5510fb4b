"""Calls the upstream with the official Python client as it is shipped.

    official_python.py URL KEY

The client has its host written into its source, so that text alone is replaced while it is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from orders import Send, serve

HOST = "https://api.anti-captcha.com/"


def main() -> None:
    """Redirect the client to loopback and serve."""
    url, key = sys.argv[1:3]
    name = "anticaptchaofficial.antinetworking"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert HOST in source, "the official client has changed: look where its host is now"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source.replace(HOST, f"{url}/"), spec.origin, "exec"), module.__dict__)

    from anticaptchaofficial.imagecaptcha import imagecaptcha

    def make_send() -> Send:
        client = imagecaptcha()
        client.set_verbose(0)
        client.set_key(key)

        def send(task_id: int) -> bool:
            client.task_id = task_id
            return bool(client.report_incorrect_image_captcha())

        return send

    serve(make_send)


main()
