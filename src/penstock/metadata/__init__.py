"""Topics, configuration and identity of the cluster, and the store they live in."""
