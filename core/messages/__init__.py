"""What is said to people: in plain words, without secrets, without commands to their terminals."""
