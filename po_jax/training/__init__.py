"""Train state, optimisers and the jitted step."""
