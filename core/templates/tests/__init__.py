"""The test of every template: what `fw new-plugin` copies beside it."""
