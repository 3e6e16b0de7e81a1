"""What looks on while a pair is fitted."""
