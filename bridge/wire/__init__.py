"""Bytes to messages and back: framing and the standard streams. Knows nothing of JSON-RPC."""
