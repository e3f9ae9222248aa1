"""What built-in components of several kinds need; it imports none of them."""
