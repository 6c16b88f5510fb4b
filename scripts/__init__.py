"""Developer tools; nothing here is installed or imported by the package."""
