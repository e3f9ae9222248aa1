"""Messages to people: in plain words, without secrets, and without commands to their terminals."""
