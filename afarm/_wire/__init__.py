"""Bytes to messages and back, for both ends of a connection to a node. Sans-IO."""
