"""The panel in a browser: Chromium without a screen, on a registry that runs."""
