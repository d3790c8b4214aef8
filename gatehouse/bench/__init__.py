"""The benchmark: how long a deploy takes, and what the gateway costs a client."""
