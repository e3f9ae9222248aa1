"""Files that are whole or not there, and files that users bring."""
