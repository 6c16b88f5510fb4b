"""report-bridge: reports wrong and right captcha answers to Anti-Captcha.com over JSON-RPC 2.0."""

__version__ = "0.1.0"
