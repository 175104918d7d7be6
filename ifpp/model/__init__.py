"""The words of the line: identifiers, states and their allowed transitions, what a chip says, the messages."""
