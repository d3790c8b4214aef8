"""Settings, rendering, parsers: nothing is connected to and nothing is changed."""
