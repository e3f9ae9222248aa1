"""Components as data: what `fw plugins` shows and checks, and the reference pages."""
