"""Configuration: sources, types, defaults and what is refused."""
