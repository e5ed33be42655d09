"""Sub-makes of sub-makes, each on another machine."""
