"""The zone matrix: one declaration from which the packet filter is rendered and by which a packet is judged."""
