"""How a call travels. `direct`: from the client's own socket to the instance."""
