"""What is measured inside a network, while it trains or afterwards: plain torch, and nothing of the network changes."""
