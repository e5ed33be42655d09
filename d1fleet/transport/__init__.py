"""Ways to reach the d1make server of a host: one persistent byte channel each."""
