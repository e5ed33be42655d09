"""Builds that have trouble with neither make nor hosts: full disks, deaf readers, low limits."""
