"""Builds by distcc: real servers, in a network namespace of a test's own."""
