"""The command line: one module per sub-command, imported only when it is called.

Each module offers ``HELP``, ``configure(parser)`` and ``run(args) -> int``; `bridge.cli.commands` lists them.
"""
