"""What a user could take in a student's place, with the same teacher and the same rows."""
