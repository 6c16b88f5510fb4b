"""The command line: one module per sub-command, imported only when it is called.

Each module offers ``configure(parser)`` and ``run(args)``, which returns an exit code if it is not 0;
`bridge.cli.commands` lists them.
"""
