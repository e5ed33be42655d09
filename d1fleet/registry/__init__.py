"""The check-in service: hosts that come and go, the projects they are in, and who may compile for whom.

Needs the extra `d1fleet[registry]`. Nothing else of d1fleet imports it.
"""
