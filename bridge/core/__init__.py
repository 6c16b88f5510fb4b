"""Leaves that every layer may import: the error table, packaged data, values, strict JSON, redaction.

Nothing in here does I/O except `bridge.core.resources`, which reads the packaged data files.
"""
