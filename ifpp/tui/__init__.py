"""What people see: the station screen in a terminal, and the same as plain lines."""
