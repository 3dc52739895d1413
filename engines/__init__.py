"""What happens offline: worlds, training, quantisation, engines. May import `perception`, never the other way round."""
