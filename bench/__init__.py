"""What a relayed chunk costs; see README.md beside this file."""
