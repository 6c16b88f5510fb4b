"""One conversation: admission, batches, cancel; and the methods of the protocol."""
