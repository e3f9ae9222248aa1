"""The shortest complete plugin of every kind: what `fw new-plugin` copies. None of them is registered as a built-in."""
