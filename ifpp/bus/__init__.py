"""The broker: topics of the line contract, a client that stays connected, a broker for demo and tests."""
