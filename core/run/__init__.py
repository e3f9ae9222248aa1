"""`fw run`: what is missing of a plan is done, logged and recorded."""
