"""What this host is and has, asked of its kernel: links, addresses, offloads, capabilities."""
