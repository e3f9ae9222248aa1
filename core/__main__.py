"""`python -m fw.core` is `fw`."""

from fw.core.cli import main

main()
