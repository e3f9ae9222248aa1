"""Files that are whole or not there, unfinished work, and files that users bring."""
