"""Where reports are remembered: the port, its stores, and the journal that writes to one of them."""
