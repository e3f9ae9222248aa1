"""What an arm has made and learned, in forms that other tools read: a file for each form."""
