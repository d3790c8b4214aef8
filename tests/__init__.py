"""The tests: `unit` needs nothing, `plan` needs pyinfra, `host` needs Docker."""
