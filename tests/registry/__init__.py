"""The registry with hosts that are machines: containers that join, move, break and leave."""
