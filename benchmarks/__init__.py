"""What is claimed about speed and size, as commands that anyone can run."""
