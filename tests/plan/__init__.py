"""A real pyinfra plans for a scripted host: nothing is applied."""
