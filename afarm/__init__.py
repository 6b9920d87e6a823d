"""One pool for Python functions out of machines you can SSH into."""
