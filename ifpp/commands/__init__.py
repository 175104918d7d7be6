"""The command line, a module a group; each command imports its role only when it runs."""
