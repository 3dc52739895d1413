"""The stock detector: its network, its training on the synthetic world, its export."""
