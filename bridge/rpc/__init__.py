"""Messages to calls and back: JSON-RPC 2.0, schemas, discovery. Knows nothing of reports."""
