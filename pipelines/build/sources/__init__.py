"""Sources: an adapter says where files are, how labels map to the taxonomy, what the licence is."""
