"""The kill campaign: the real line under faults, and a judge who asks every chip what it holds."""
